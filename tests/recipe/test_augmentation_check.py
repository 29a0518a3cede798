"""Which augmentation which targets can bear."""

from types import SimpleNamespace

import pytest
import torch

from selfdistill.core import ConfigError, Needs
from selfdistill.data import InMemoryImages
from selfdistill.data.targets import Boxes, Labels, Masks
from selfdistill.recipe.augmentation_check import check_augmentation
from selfdistill.recipe.document import check_early, typed_recipe
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
        ({"unit": "pixels", "cutmix": 0.1}, "the labels that --cutmix would mix are of images"),
        ({"channels": 4, "auto_augment": "randaugment"}, "one or three channels, and these have 4"),
        (
            {"needs": Needs(single_label=True), "mixup": 0.1},
            "takes each image for one of one class",
        ),
        ({"needs": Needs(same_class=True), "mixup": 0.1}, "takes each image for one of one class"),
        ({"needs": Needs(unlabeled=True), "cutmix": 1.0}, "reads no labels"),
        ({"mosaic_probability": 0.5}, "--mosaic-probability is for images with boxes or masks"),
        ({"scale_jitter": 0.5}, "--scale-jitter is for .* in 'shapes' images have a class"),
        ({"shift": 0.1}, "--shift is for images with boxes or masks"),
        ({"channels": 1, "hsv_jitter": (0.1, 0, 0)}, "three channels, and these have 1; leave"),
    ],
)
def test_what_targets_or_method_cannot_bear_is_refused(arguments, match):
    with pytest.raises(ConfigError, match=match):
        check(**arguments)


def test_the_rest_goes():
    check(auto_augment="trivial", mixup=0.2, cutmix=1.0, erase_probability=0.5)
    check(unit="pixels", auto_augment="trivial", erase_probability=0.5)
    check(unit="boxes", color_jitter=0.5, max_zoom=2.0)
    check(unit="boxes", mosaic_probability=1.0, scale_jitter=0.5, shift=0.1, hsv_jitter=(0.1,) * 3)
    check(unit="pixels", mosaic_probability=1.0, max_zoom=2.0)
    check(hsv_jitter=(0.015, 0.7, 0.4))
    check(channels=1, hsv_jitter=(0.0, 0.0, 0.0))
    check(channels=1, auto_augment="trivial")
    check(channels=4, erase_probability=0.5, mixup=1.0)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"scale_jitter": 0.5, "max_zoom": 2.0}, "scale_jitter takes the place of the zoom"),
        ({"shift": 0.1, "max_zoom": 1.5}, "max_zoom = 1.5 is given, too; give max_zoom = 1"),
        ({"mosaic_fraction": 0.9}, "there are none; give mosaic_probability, too"),
        (
            {"mosaic_probability": 1.0, "mosaic_fraction": 0.9, "cache_views": 3},
            "cannot end before the run does; leave out mosaic_fraction or cache_views",
        ),
        ({"hsv_jitter": (0.1, 0.2)}, "hsv_jitter has 2 numbers; give three"),
        ({"hsv_jitter": 0.1}, "hsv_jitter has 1 numbers; give three"),
        ({"hsv_jitter": (0.1, 0.2, 1.5)}, "hsv_jitter"),
        ({"hsv_jitter": (0.1, -0.2, 0.5)}, "hsv_jitter"),
        ({"hsv_jitter": "much"}, "hsv_jitter"),
        ({"scale_jitter": 1.0}, "scale_jitter"),
        ({"shift": -0.1}, "shift"),
        ({"mosaic_probability": 2}, "mosaic_probability"),
        ({"mosaic_probability": float("nan")}, "mosaic_probability"),
        ({"mosaic_probability": 1.0, "mosaic_fraction": -1}, "mosaic_fraction"),
    ],
    ids=str,
)
def test_what_is_said_twice_or_by_halves_is_refused(keys, match):
    with pytest.raises(ConfigError, match=match):
        parse({"method": "ce", "task": "detection", **keys})


def test_remedies_of_refusals_work():
    for keys in (
        {"scale_jitter": 0.5, "max_zoom": 1.0},
        {"scale_jitter": 0.0, "shift": 0.0, "max_zoom": 2.0},
        {"mosaic_probability": 1.0, "mosaic_fraction": 0.9},
        {"mosaic_probability": 1.0, "cache_views": 3},
    ):
        parse({"method": "ce", "task": "detection", **keys})


@pytest.mark.parametrize("task", ["classification", "clips", "embedding"])
def test_tasks_of_labels_are_refused_before_their_data_are_read(task):
    recipe = typed_recipe({"method": "ce", "task": task, "mosaic_probability": 1.0})
    with pytest.raises(ConfigError, match="--mosaic-probability is for images with boxes or masks"):
        check_early(recipe)
    check_early(typed_recipe({"method": "ce", "task": "detection", "mosaic_probability": 1.0}))
