"""Folders of pictures and masks, and what is said where they do not fit."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.core import IGNORE, DataError
from selfdistill.data import load


@pytest.fixture
def scenes(tmp_path):
    """Two parts of pictures of 20×16 with masks of classes 0 … 2 and 9."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 3)):
        for kind in ("images", "masks"):
            (tmp_path / part / kind).mkdir(parents=True)
        for i in range(count):
            pixels = draw.integers(0, 256, (16, 20, 3), dtype=np.uint8)
            labels = draw.integers(0, 3, (16, 20), dtype=np.uint8)
            labels[0, 0] = 9
            Image.fromarray(pixels).save(tmp_path / part / "images" / f"{i}.png")
            Image.fromarray(labels).save(tmp_path / part / "masks" / f"{i}.png")
    return tmp_path


def read(path, **options):
    return load(
        f"folder:{path}",
        task="segmentation",
        **({"ignore_index": 9, "val_fraction": 0.25} | options),
    )


def test_parts_classes_and_values(scenes):
    data = read(scenes)
    assert (len(data.train), len(data.val), len(data.test)) == (6, 2, 3)
    assert data.classes == ["0", "1", "2"]
    assert data.task == "segmentation"
    assert data.train.shape == (3, 16, 20)
    assert (data.crop_padding, data.max_zoom, data.flip) == (0, 2.0, True)
    masks = data.test.targets.fetch(torch.arange(3))
    stored = np.array(Image.open(scenes / "test" / "masks" / "1.png"))
    want = np.where(stored == 9, IGNORE, stored)
    np.testing.assert_array_equal(masks[1].numpy(), want)
    pixels = np.array(Image.open(scenes / "test" / "images" / "1.png"))
    np.testing.assert_array_equal(data.test.fetch(torch.tensor([1]))[0].movedim(0, 2), pixels)


def test_names_of_classes(scenes):
    (scenes / "classes.txt").write_text("road\nsky\ncar\ntree\n")
    assert read(scenes).classes == ["road", "sky", "car", "tree"]


def test_one_level_is_split(scenes):
    data = read(scenes / "train")
    assert data.test is None
    assert len(data.train) + len(data.val) == 8


def test_another_size(scenes):
    data = read(scenes, image_size=8)
    assert data.train.shape == (3, 8, 8)
    assert data.train.targets.fetch(torch.tensor([0])).shape == (1, 8, 8)


def test_pictures_of_different_sizes_are_brought_to_one(scenes):
    wide = Image.new("RGB", (40, 16)), Image.new("L", (40, 16))
    for kind, picture in zip(("images", "masks"), wide, strict=True):
        picture.save(scenes / "train" / kind / "wide.png")
    assert read(scenes).train.shape == (3, 256, 256)


def test_a_palette_is_read_as_classes(scenes):
    folder = scenes / "test" / "masks" / "0.png"
    before = np.array(Image.open(folder))
    paletted = Image.frombytes("P", (20, 16), before.tobytes())
    paletted.putpalette([i % 256 for i in range(768)])
    paletted.save(folder)
    masks = read(scenes).test.targets.fetch(torch.tensor([0]))
    np.testing.assert_array_equal(masks[0].numpy(), np.where(before == 9, IGNORE, before))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda p: shutil.rmtree(p / "train" / "masks"), "no folder .*masks"),
        (lambda p: (p / "train" / "masks" / "3.png").unlink(), "picture 3 in .* has no mask"),
        (lambda p: (p / "test" / "images" / "1.png").unlink(), "mask 1 in .* has no picture"),
        (
            lambda p: Image.new("L", (9, 9)).save(p / "train" / "masks" / "0.png"),
            "9×9 and its picture 20×16",
        ),
        (
            lambda p: Image.new("RGB", (20, 16)).save(p / "train" / "masks" / "0.png"),
            "picture in colors",
        ),
        (lambda p: (p / "train" / "images" / "0.png").write_bytes(b"x"), "cannot read the image"),
        (lambda p: (p / "classes.txt").write_text("one\ntwo\n"), "there are 2 classes"),
        (
            lambda p: (p / "train" / "masks" / "3.png").rename(p / "train" / "masks" / "3.jpg"),
            None,
        ),
        (lambda p: jpeg(p / "train" / "masks" / "3"), "3.jpg is a JPEG, which blurs"),
        (lambda p: jpeg(p / "train" / "masks" / "3", ending="png"), "3.png is a JPEG"),
        (lambda p: only(p, "train", [0, 9, 255]), "the one class '0' and nothing else"),
        (lambda p: only(p, "train", [9, 255]), "hold no class and nothing else"),
        (lambda p: only(p, "train", [0, 1]), "class '2' is in masks of the test part"),
        (lambda p: only(p, "test", [3]), "class '3' is in masks of the test part .*no training"),
        (lambda p: only(p, "test", [7]), "hold the values 0, 1, 2, 7, which do not count"),
        (lambda p: (p / "classes.txt").write_text("0: a\nb\n"), "each line .* must be VALUE: NAME"),
        (lambda p: (p / "classes.txt").write_text("0: a\n0: b\n"), "each line .* must be VALUE"),
        (lambda p: (p / "classes.txt").write_text("0: a\n300: b\n"), "each line .* must be VALUE"),
        (lambda p: (p / "classes.txt").write_text("a\nb\na\n"), "two classes .* called 'a'"),
    ],
)
def test_damage_is_told(scenes, damage, sentence):
    damage(scenes)
    if sentence is None:
        assert len(read(scenes).train) == 6  # the name says nothing of the content
        return
    with pytest.raises(DataError, match=sentence):
        read(scenes)


def jpeg(stem, ending="jpg"):
    """A mask as JPEG, in place of its PNG."""
    picture = Image.open(stem.with_suffix(".png"))
    picture.load()
    stem.with_suffix(".png").unlink()
    picture.save(stem.with_suffix(f".{ending}"), "JPEG")


def only(path, part, values):
    """Masks of these values alone."""
    for file in (path / part / "masks").iterdir():
        draw = np.random.default_rng(len(file.name)).choice(values, (16, 20))
        draw.flat[: len(values)] = values
        Image.fromarray(draw.astype(np.uint8)).save(file)


@pytest.mark.parametrize("values", [[0, 255], [0, 128, 255], [0, 7, 11, 33], [1, 2, 3]])
def test_a_coding_is_refused_and_its_remedy_works(scenes, values):
    for part in ("train", "test"):
        only(scenes, part, values)
    with pytest.raises(DataError, match=r"VALUE: NAME|'255: object'") as error:
        read(scenes)
    assert str(scenes / "classes.txt") in str(error.value)
    names = [f"class {value}" for value in values]
    lines = (f"{v}: {name}" for v, name in zip(values, names, strict=True))
    (scenes / "classes.txt").write_text("\n".join(lines))
    data = read(scenes)
    assert data.classes == names
    stored = np.array(Image.open(scenes / "test" / "masks" / "0.png"))
    want = np.searchsorted(values, stored)
    np.testing.assert_array_equal(data.test.targets.fetch(torch.tensor([0]))[0].numpy(), want)


def test_void_is_no_class_among_others(scenes):
    for part in ("train", "test"):
        only(scenes, part, [0, 1, 255])
    data = read(scenes, ignore_index=None)
    assert data.classes == ["0", "1"]
    assert set(data.train.targets.masks.unique().tolist()) == {0, 1, IGNORE}
    only(scenes, "train", [0, 1, 2, 9])
    (scenes / "classes.txt").write_text("a\nb\nc\n")
    assert set(read(scenes).train.targets.masks.unique().tolist()) == {0, 1, 2, IGNORE}


def test_a_turned_picture_fits_the_mask_of_what_is_shown(scenes):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.open(scenes / "train" / "images" / "0.png")
    stored.load()
    stored.save(scenes / "train" / "images" / "0.png", exif=exif)
    with pytest.raises(DataError, match="20×16 and its picture 16×20, as its EXIF tag turns it"):
        read(scenes)
    mask = Image.open(scenes / "train" / "masks" / "0.png").transpose(Image.Transpose.ROTATE_270)
    mask.save(scenes / "train" / "masks" / "0.png")
    assert read(scenes, image_size=16).train.shape == (3, 16, 16)


def test_a_stray_value_is_named(scenes):
    (scenes / "classes.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(DataError, match=r"class 9 and there are 3.*ignore_index=9"):
        read(scenes, ignore_index=None)


def test_unknown_names(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no data set 'digits' for segmentation.*voc"):
        load("digits", task="segmentation")
