"""A row is made again only where it can be scored."""

import numpy as np
import pytest
from PIL import Image

from selfdistill.core import ConfigError
from selfdistill.reproduction.reproduce import reproduce


def test_data_without_test_images_are_refused_before_the_training(tmp_path):
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(8):
            pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    with pytest.raises(ConfigError, match=r"is scored on test images, and folder:.* has none"):
        reproduce(
            "muse/table7b/resnet20/baseline",
            seeds=1,
            out=tmp_path / "out",
            data=f"folder:{tmp_path / 'pictures'}",
        )
    assert not (tmp_path / "out").exists()
