"""Which augmentation which targets can bear."""

from types import SimpleNamespace

import pytest
import torch

from selfdistill.core import ConfigError, Needs
from selfdistill.data import InMemoryImages
from selfdistill.data.targets import Boxes, Labels, Masks
from selfdistill.recipe.augmentation_check import check_augmentation
from selfdistill.recipe.schema import parse

TARGETS = {
    "images": Labels(torch.zeros(2, dtype=torch.int64)),
    "pixels": Masks(torch.zeros(2, 8, 8, dtype=torch.uint8)),
    "boxes": Boxes(torch.zeros(2, 1, 5), (8, 8)),
}


def check(unit="images", channels=3, needs=Needs(), **keys):  # noqa: B008
    images = InMemoryImages(torch.zeros(2, channels, 8, 8, dtype=torch.uint8), TARGETS[unit])
    data = SimpleNamespace(train=images, name="shapes")
    check_augmentation(parse({"method": "ce", **keys}), data, SimpleNamespace(needs=needs))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"unit": "boxes", "auto_augment": "trivial"}, "boxes do not follow --auto-augment"),
        ({"unit": "boxes", "erase_probability": 0.1}, "boxes do not follow --erase-probability"),
        ({"unit": "boxes", "mixup": 0.1}, "in 'shapes' boxes have them"),
        ({"unit": "pixels", "cutmix": 0.1}, "--cutmix mixes the labels of images"),
        ({"channels": 4, "auto_augment": "randaugment"}, "one or three channels, and these have 4"),
        (
            {"needs": Needs(single_label=True), "mixup": 0.1},
            "takes each image for one of one class",
        ),
        ({"needs": Needs(same_class=True), "mixup": 0.1}, "takes each image for one of one class"),
        ({"needs": Needs(unlabeled=True), "cutmix": 1.0}, "reads no labels"),
    ],
)
def test_what_targets_or_method_cannot_bear_is_refused(arguments, match):
    with pytest.raises(ConfigError, match=match):
        check(**arguments)


def test_the_rest_goes():
    check(auto_augment="trivial", mixup=0.2, cutmix=1.0, erase_probability=0.5)
    check(unit="pixels", auto_augment="trivial", erase_probability=0.5)
    check(unit="boxes", color_jitter=0.5, max_zoom=2.0)
    check(channels=1, auto_augment="trivial")
    check(channels=4, erase_probability=0.5, mixup=1.0)
