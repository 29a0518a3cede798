"""The report on the data: moments by numpy, counts, and copies that were put there."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.core import DataError
from selfdistill.data import ExtraImages, ImageData, load
from selfdistill.data.images import ImageFiles
from selfdistill.data.in_memory import InMemoryImages
from selfdistill.data.targets import NO_BOX, Boxes, Masks
from selfdistill.diagnosis.data import check_data


def images(labels, seed=0) -> InMemoryImages:
    draw = torch.Generator().manual_seed(seed)
    shape = (len(labels), 3, 8, 8)
    pixels = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
    return InMemoryImages(pixels, torch.tensor(labels))


def data(train=None, **parts) -> ImageData:
    train = train or images([0, 1, 2] * 20)
    known = {"val": images([0, 1, 2] * 4, 1), "test": images([0, 1, 2] * 5, 2), **parts}
    mean, std = train.mean_and_std()
    return ImageData("made", train, **known, classes=["a", "b", "c"], mean=mean, std=std,
                     crop_padding=0, flip=False, resized_crop=False)  # fmt: skip


def test_sound_data_have_no_warning():
    report = check_data(data())
    assert report.sizes == {"train": 60, "val": 12, "test": 15}
    assert (report.shape, report.counts) == ((3, 8, 8), [20, 20, 20])
    assert report.duplicates == {"val": (0, 12), "test": (0, 15)}
    assert report.warnings == []


def test_extra_images_are_counted():
    report = check_data(replace(data(), extra=ExtraImages("npz:x", images([0] * 7), "", ("note",))))
    assert report.sizes == {"train": 60, "val": 12, "test": 15, "extra": 7}
    assert report.warnings == ["note"]


def test_moments_equal_numpys():
    data_set = data()
    report = check_data(data_set)
    pixels = data_set.train.images.numpy() / 255
    np.testing.assert_allclose(report.moments[0], pixels.mean((0, 2, 3)))
    np.testing.assert_allclose(report.moments[1], pixels.std((0, 2, 3)))


@pytest.mark.parametrize("change", [{"mean": (0.1, 0.5, 0.5)}, {"std": (0.29, 0.9, 0.29)}])
def test_another_normalization_is_warned_of(change):
    (sentence,) = check_data(replace(data(), **change)).warnings
    assert "are normalized by" in sentence
    assert "--mean and --std" in sentence


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([0] * 40 + [1] * 20 + [2] * 4, "'a' has 40 training images and 'c' 4"),
        ([0] * 8 + [1] * 8 + [2] * 4, "'c' has only 4 training images"),
        ([0] * 20 + [1] * 20, "class 'c' has no training image"),
        ([1] * 20, "class 'a' (and 1 more) has no training image"),
    ],
)
def test_classes_out_of_balance(labels, text):
    (sentence,) = check_data(data(images(labels))).warnings
    assert text in sentence


def test_images_that_are_in_two_parts():
    train = images([0, 1, 2] * 20)
    val = InMemoryImages(
        torch.cat([train.images[:5], images([0] * 7, 3).images]), torch.arange(12) % 3
    )
    report = check_data(data(train, val=val))
    assert report.duplicates == {"val": (5, 12), "test": (0, 15)}
    assert report.warnings[0].startswith("5 of 12 val images are training images, too")


def test_files_that_are_in_two_parts(tmp_path):
    draw = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 3), ("test", 3)):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "test/a/0.png")
    data_set = load(f"folder:{tmp_path}")
    report = check_data(data_set)
    assert report.duplicates["test"] == (1, 6)

    streamed = replace(data_set, **{part: in_files(tmp_path / part) for part in report.sizes})
    report = check_data(streamed)
    assert report.duplicates == {"val": (0, 6), "test": (1, 6)}
    np.testing.assert_allclose(report.moments[0], data_set.mean)


def test_broken_files_are_all_named(tmp_path):
    for part in ("train", "val"):
        for i in range(6):
            (tmp_path / part / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(i).integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / "ab"[i % 2] / f"{i}.png")
    streamed = {part: in_files(tmp_path / part) for part in ("train", "val")}
    (tmp_path / "train" / "a" / "2.png").write_bytes(b"x")
    cut = tmp_path / "val" / "b" / "3.png"
    cut.write_bytes(cut.read_bytes()[:100])
    with pytest.raises(DataError, match=r"cannot read 2 images: .*2\.png.*3\.png"):
        check_data(replace(data(), **streamed, test=None))


def test_notes_are_warned_of():
    report = check_data(replace(data(), notes=("2 files are passed over",)))
    assert report.warnings == ["2 files are passed over"]
    plain = InMemoryImages(torch.zeros(60, 3, 8, 8, dtype=torch.uint8), torch.arange(60) % 3)
    assert "of one color" in check_data(data(plain)).warnings[0]


def in_files(folder) -> ImageFiles:
    """Pictures that stay in their files, as those of a large folder do."""
    files = sorted(folder.rglob("*.png"))
    return ImageFiles(
        files, torch.tensor([file.parent.name == "b" for file in files]).long(), (8, 8)
    )


def test_of_many_images_a_part_is_looked_at():
    report = check_data(data(images([0, 1, 2] * 1000)))
    assert report.num_sampled == 2000
    assert report.sizes["train"] == 3000


def test_validation_images_that_say_little():
    assert "give --val-fraction 0.1" in check_data(data(val=None)).warnings[0]
    assert "5 validation images for 3 classes" in check_data(data(val=images([0] * 5))).warnings[0]


def with_boxes(*classes, side=4.0, empty=0) -> ImageData:
    """An image for each class, with one box of it, and images without one."""
    rows = torch.tensor([[[label, 1, 1, 7, 1 + side]] for label in classes])
    none = torch.tensor([[[NO_BOX, 0, 0, 0, 0]]]).repeat(empty, 1, 1)
    train = images([0] * (len(classes) + empty))
    train = InMemoryImages(train.images, Boxes(torch.cat([rows, none]).float(), (8, 8)))
    return replace(data(train), task="detection", layout="YOLO")


def test_boxes_are_counted():
    report = check_data(with_boxes(*[0, 1, 2] * 8, empty=3))
    assert (report.unit, report.counts, report.layout) == ("boxes", [8, 8, 8], "YOLO")
    assert (report.empty_images, report.thin_boxes, report.warnings) == (3, 0, [])


@pytest.mark.parametrize(
    ("data_set", "sentence"),
    [
        (with_boxes(*[0] * 50, *[1] * 9, *[2] * 5), "'a' has 50 training boxes and 'c' 5"),
        (with_boxes(*[0] * 20, *[1] * 4, *[2] * 9), "class 'b' has only 4 training boxes"),
        (with_boxes(*[0, 1] * 9), "class 'c' has no training box"),
        (with_boxes(*[0, 1, 2] * 9, side=3.9), "27 of 27 training boxes are less than 4 pixels"),
        (with_boxes(*[0, 1, 2] * 9, empty=28), "28 of 55 training images hold nothing"),
    ],
)
def test_boxes_that_are_warned_of(data_set, sentence):
    (warning,) = check_data(data_set).warnings
    assert sentence in warning


def test_pixels_are_counted():
    masks = torch.zeros(20, 8, 8, dtype=torch.uint8)
    masks[:, :2], masks[:, 4:], masks[3] = 1, 2, 255
    train = InMemoryImages(images([0] * 20).images, Masks(masks))
    report = check_data(replace(data(train), task="segmentation"))
    assert (report.unit, report.counts) == ("pixels", [19 * 16, 19 * 16, 19 * 32])
    assert (report.empty_images, report.warnings) == (1, [])
    masks[masks == 1] = 2
    masks[0, 0, 0] = 1
    assert check_data(replace(data(train), task="segmentation")).warnings == []
    masks[0, 0, 0] = 2
    (warning,) = check_data(replace(data(train), task="segmentation")).warnings
    assert "class 'b' has no training pixel" in warning
