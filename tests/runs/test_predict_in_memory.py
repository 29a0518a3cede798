"""Pictures that are given as objects are predicted as their files are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import selfdistill
from selfdistill.core import DataError
from selfdistill.runs.pictures import list_pictures

DRAW = np.random.default_rng(0)
RGB = DRAW.integers(0, 256, (40, 52, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    place = tmp_path_factory.mktemp("segmenter")
    for name in ("images", "masks"):
        (place / "set" / name).mkdir(parents=True)
    for number in range(8):
        pixels = DRAW.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "set" / "images" / f"{number}.png")
        mask = (np.arange(32) > 12).astype(np.uint8) * np.ones((32, 1), np.uint8)
        Image.fromarray(mask).save(place / "set" / "masks" / f"{number}.png")
    (place / "set" / "classes.txt").write_text("dark\nlight")
    return selfdistill.train(
        data=f"folder:{place / 'set'}", task="segmentation", model="fpn/small", method="ce",
        image_size=32, epochs=1, batch_size=4, device="cpu", out=place / "run",
    )  # fmt: skip


def files(place: Path) -> dict[str, Path]:
    """A picture of each kind, in formats that lose nothing."""
    turned = Image.Exif()
    turned[0x0112] = 6
    pictures = {
        "rgb": Image.fromarray(RGB),
        "gray": Image.fromarray(RGB[..., 0]),
        "deep": Image.fromarray(RGB[..., 0].astype(np.uint16) * 200),
        "transparent": Image.fromarray(np.dstack([RGB, RGB[..., 0]])),
        "palette": Image.fromarray(RGB).quantize(16),
    }
    for name, picture in pictures.items():
        picture.save(place / f"{name}.png")
    Image.fromarray(RGB).save(place / "turned.jpg", exif=turned)
    return {path.stem: path for path in sorted(place.iterdir())}


def assert_equal(made, wanted):
    assert made.placement == wanted.placement
    assert made.classes == wanted.classes
    assert torch.equal(made.input_mask, wanted.input_mask)


def test_an_open_picture_is_predicted_as_its_file(segmenter, tmp_path):
    paths = files(tmp_path)
    wanted = segmenter.predict(paths.values())
    opened = [Image.open(path) for path in paths.values()]
    for made, expected in zip(segmenter.predict(opened), wanted, strict=True):
        assert_equal(made, expected)
    loaded = [picture.copy() for picture in opened]
    for made, expected in zip(segmenter.predict(loaded), wanted, strict=True):
        assert_equal(made, expected)


def test_arrays_and_tensors_are_predicted_as_their_files(segmenter, tmp_path):
    paths = files(tmp_path)
    gray, alpha = RGB[..., 0], np.dstack([RGB, RGB[..., 0]])
    given = {
        "rgb": [RGB, torch.from_numpy(RGB).permute(2, 0, 1), RGB[:, ::-1][:, ::-1]],
        "gray": [gray, gray[..., None], torch.from_numpy(gray.copy())[None]],
        "transparent": [alpha, torch.from_numpy(alpha).permute(2, 0, 1)],
    }
    for name, pictures in given.items():
        (expected,) = segmenter.predict(paths[name])
        for made in segmenter.predict(pictures):
            assert_equal(made, expected)


def test_a_batch_one_picture_and_an_iterator(segmenter, tmp_path):
    path = files(tmp_path)["rgb"]
    batch = np.stack([RGB, RGB])
    assert [str(p.path) for p in segmenter.predict(batch)] == ["picture-0", "picture-1"]
    assert len(segmenter.predict(torch.from_numpy(batch).permute(0, 3, 1, 2))) == 2
    assert len(segmenter.predict(RGB)) == len(segmenter.predict(Image.fromarray(RGB))) == 1
    names = [str(p.path) for p in segmenter.predict([path, RGB, str(path)])]
    assert names == [str(path), "picture-1"]
    assert len(selfdistill.predict(segmenter, tmp_path.glob("*.png"))) == 5
    assert len(selfdistill.predict(segmenter, iter([RGB]))) == 1


def test_one_object_twice(segmenter, tmp_path):
    opened = Image.open(files(tmp_path)["rgb"])
    predictions = segmenter.predict([opened] * 20)
    assert len(predictions) == 20
    for made in predictions:
        assert_equal(made, predictions[0])


def test_what_is_saved(segmenter, tmp_path):
    predictions = selfdistill.predict(segmenter, [RGB, RGB[:20]], save=tmp_path / "made")
    drawings = sorted(path.name for path in (tmp_path / "made").iterdir())
    names = ["picture-0-mask.png", "picture-0.png", "picture-1-mask.png", "picture-1.png"]
    assert drawings == [*names, "predictions.csv"]
    for prediction, height in zip(predictions, (40, 20), strict=True):
        with Image.open(tmp_path / "made" / f"{prediction.path}-mask.png") as mask:
            assert np.array_equal(np.asarray(mask), prediction.mask)
            assert mask.size == (52, height)
    assert '"picture": "picture-1"' in predictions.to_json()


def test_a_picture_of_no_known_range_is_passed_over(segmenter):
    predictions = segmenter.predict([Image.new("F", (8, 8)), RGB])
    assert [str(p.path) for p in predictions] == ["picture-1"]
    assert "no known range" in predictions.unreadable[Path("picture-0")]


def test_a_network_of_clips_wants_videos():
    with pytest.raises(DataError, match="takes clips and this is a picture; give video files"):
        list_pictures(RGB, videos=True)
