"""What is said of images: moments by numpy, counts, and copies that were put there."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.data import ImageData, load
from selfdistill.data.images import ImageFiles, InMemoryImages
from selfdistill.data.targets import NO_BOX, Boxes, Masks
from selfdistill.doctor.data import look_at_data


def images(labels, seed=0) -> InMemoryImages:
    draw = torch.Generator().manual_seed(seed)
    shape = (len(labels), 3, 8, 8)
    pixels = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
    return InMemoryImages(pixels, torch.tensor(labels))


def data(train=None, **parts) -> ImageData:
    train = train or images([0, 1, 2] * 20)
    known = {"val": images([0, 1, 2] * 4, 1), "test": images([0, 1, 2] * 5, 2), **parts}
    mean, std = train.mean_and_std()
    return ImageData("mine", train, **known, classes=["a", "b", "c"], mean=mean, std=std,
                     crop_padding=0, flip=False, resized_crop=False)  # fmt: skip


def test_sound_data_have_no_warning():
    found = look_at_data(data())
    assert found.sizes == {"train": 60, "val": 12, "test": 15}
    assert (found.shape, found.counts) == ((3, 8, 8), [20, 20, 20])
    assert found.repeated == {"val": (0, 12), "test": (0, 15)}
    assert found.warnings == []


def test_moments_equal_numpys():
    mine = data()
    found = look_at_data(mine)
    pixels = mine.train.images.numpy() / 255
    np.testing.assert_allclose(found.moments[0], pixels.mean((0, 2, 3)))
    np.testing.assert_allclose(found.moments[1], pixels.std((0, 2, 3)))


@pytest.mark.parametrize("change", [{"mean": (0.1, 0.5, 0.5)}, {"std": (0.29, 0.9, 0.29)}])
def test_another_normalization_is_told(change):
    (sentence,) = look_at_data(replace(data(), **change)).warnings
    assert "are normalized by" in sentence
    assert "dataclasses.replace" in sentence


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0] * 40 + [1] * 20 + [2] * 4, "'a' has 40 training images and 'c' 4"),
        ([0] * 8 + [1] * 8 + [2] * 4, "'c' has only 4 training images"),
        ([0] * 20 + [1] * 20, "class 'c' has no training image"),
        ([1] * 20, "class 'a' (and 1 more) has no training image"),
    ],
)
def test_classes_out_of_balance(labels, words):
    (sentence,) = look_at_data(data(images(labels))).warnings
    assert words in sentence


def test_images_that_are_in_two_parts():
    train = images([0, 1, 2] * 20)
    val = InMemoryImages(
        torch.cat([train.images[:5], images([0] * 7, 3).images]), torch.arange(12) % 3
    )
    found = look_at_data(data(train, val=val))
    assert found.repeated == {"val": (5, 12), "test": (0, 15)}
    assert found.warnings[0].startswith("5 of 12 val images are training images, too")


def test_files_that_are_in_two_parts(tmp_path):
    draw = np.random.default_rng(0)
    for part, each in (("train", 12), ("val", 3), ("test", 3)):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(each):
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "test/a/0.png")
    mine = load(f"folder:{tmp_path}")
    found = look_at_data(mine)
    assert found.repeated["test"] == (1, 6)

    streamed = replace(mine, **{part: in_files(tmp_path / part) for part in found.sizes})
    found = look_at_data(streamed)
    assert found.repeated == {"val": (0, 6), "test": (1, 6)}
    np.testing.assert_allclose(found.moments[0], mine.mean)


def in_files(place) -> ImageFiles:
    """Pictures that stay in their files, as those of a large folder do."""
    files = sorted(place.rglob("*.png"))
    return ImageFiles(
        files, torch.tensor([file.parent.name == "b" for file in files]).long(), (8, 8)
    )


def test_of_many_images_a_part_is_looked_at():
    found = look_at_data(data(images([0, 1, 2] * 1000)))
    assert found.sampled == 2000
    assert found.sizes["train"] == 3000


def test_validation_images_that_say_little():
    assert "give --val 0.1" in look_at_data(data(val=None)).warnings[0]
    assert (
        "5 validation images for 3 classes" in look_at_data(data(val=images([0] * 5))).warnings[0]
    )


def with_boxes(*classes, side=4.0, empty=0) -> ImageData:
    """An image for each class, with one box of it, and images without one."""
    rows = torch.tensor([[[label, 1, 1, 7, 1 + side]] for label in classes])
    none = torch.tensor([[[NO_BOX, 0, 0, 0, 0]]]).repeat(empty, 1, 1)
    train = images([0] * (len(classes) + empty))
    train = InMemoryImages(train.images, Boxes(torch.cat([rows, none]).float(), (8, 8)))
    return replace(data(train), task="detection", layout="YOLO")


def test_boxes_are_counted():
    found = look_at_data(with_boxes(*[0, 1, 2] * 8, empty=3))
    assert (found.unit, found.counts, found.layout) == ("boxes", [8, 8, 8], "YOLO")
    assert (found.empty, found.thin, found.warnings) == (3, 0, [])


@pytest.mark.parametrize(
    ("mine", "sentence"),
    [
        (with_boxes(*[0] * 50, *[1] * 9, *[2] * 5), "'a' has 50 training boxes and 'c' 5"),
        (with_boxes(*[0] * 20, *[1] * 4, *[2] * 9), "class 'b' has only 4 training boxes"),
        (with_boxes(*[0, 1] * 9), "class 'c' has no training box"),
        (with_boxes(*[0, 1, 2] * 9, side=3.9), "27 of 27 training boxes are less than 4 pixels"),
        (with_boxes(*[0, 1, 2] * 9, empty=28), "28 of 55 training images hold nothing"),
    ],
)
def test_boxes_that_are_told(mine, sentence):
    (warning,) = look_at_data(mine).warnings
    assert sentence in warning


def test_pixels_are_counted():
    masks = torch.zeros(20, 8, 8, dtype=torch.uint8)
    masks[:, :2], masks[:, 4:], masks[3] = 1, 2, 255
    train = InMemoryImages(images([0] * 20).images, Masks(masks))
    found = look_at_data(replace(data(train), task="segmentation"))
    assert (found.unit, found.counts) == ("pixels", [19 * 16, 19 * 16, 19 * 32])
    assert (found.empty, found.warnings) == (1, [])
    masks[masks == 1] = 2
    masks[0, 0, 0] = 1
    assert look_at_data(replace(data(train), task="segmentation")).warnings == []
    masks[0, 0, 0] = 2
    (warning,) = look_at_data(replace(data(train), task="segmentation")).warnings
    assert "class 'b' has no training pixel" in warning
