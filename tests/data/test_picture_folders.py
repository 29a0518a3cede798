"""Pictures without labels: which files are read, as which part, and which are held out."""

import numpy as np
import pytest
from PIL import Image

from selfdistill.core import DataError
from selfdistill.data import ImageFiles, load
from selfdistill.data.picture_folders import read_picture_folder
from selfdistill.data.targets import Unlabeled

RNG = np.random.default_rng(0)


def paint(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name)


def read(path, **keys):
    return load(f"folder:{path}", task="embedding", **keys)


def names(images: ImageFiles) -> list[str]:
    return [images.path(i).rpartition("/")[2] for i in range(len(images))]


def test_all_pictures_in_and_below_a_folder(tmp_path):
    paint(tmp_path, "b.png", "a.jpg")
    paint(tmp_path / "2024" / "may", "c.png")
    paint(tmp_path / ".hidden", "d.png")
    (tmp_path / "notes.txt").write_text("no picture")
    splits = read_picture_folder(tmp_path)
    assert names(splits.train) == ["a.jpg", "b.png", "c.png"]
    assert (splits.val, splits.test, splits.classes) == (None, None, [])
    data = read(tmp_path, val_fraction=0.34)
    assert (len(data.train), len(data.val), data.test) == (2, 1, None)
    assert isinstance(data.train.targets, Unlabeled)
    assert data.train.targets.fetch(data.train.labels) is None


def test_parts_are_those_of_their_names_and_the_rest_is_told(tmp_path):
    paint(tmp_path / "train" / "x", "a.png", "b.png")
    paint(tmp_path / "Valid", "c.png")
    paint(tmp_path / "test", "d.png")
    paint(tmp_path / "other", "e.png")
    paint(tmp_path, "f.png")
    data = read(tmp_path)
    assert [len(part) for part in (data.train, data.val, data.test)] == [2, 1, 1]
    assert any("holds other, 1 pictures, left out" in note for note in data.notes)


def test_a_validation_part_alone_is_the_test_part(tmp_path):
    paint(tmp_path / "train", *(f"{i}.png" for i in range(10)))
    paint(tmp_path / "val", "c.png")
    data = read(tmp_path)
    assert [len(part) for part in (data.train, data.val, data.test)] == [9, 1, 1]


def test_the_same_images_are_held_out_as_with_labels(tmp_path):
    for kind in ("ant", "ant-lion", "bee"):
        paint(tmp_path / kind, *(f"{kind}{i}.png" for i in range(10)))
    with_labels = load(f"folder:{tmp_path}", val_fraction=0.3, image_size=8)
    without = read(tmp_path, val_fraction=0.3, image_size=8)
    assert (with_labels.val.images == without.val.images).all()
    assert (with_labels.train.images == without.train.images).all()


def test_an_archive_with_and_without_labels(tmp_path):
    images = RNG.integers(0, 256, (20, 8, 8), dtype=np.uint8)
    labels = np.arange(20) % 2
    np.savez(tmp_path / "bare.npz", images=images)
    np.savez(tmp_path / "parts.npz", train_images=images, test_images=images[:3])
    np.savez(tmp_path / "labeled.npz", train_images=images, train_labels=labels)
    bare, parts, labeled = (
        load(f"npz:{tmp_path / name}.npz", task="embedding", val_fraction=0.3)
        for name in ("bare", "parts", "labeled")
    )
    assert [len(d.train) for d in (bare, parts, labeled)] == [14, 14, 14]
    assert len(parts.test) == 3
    assert bare.classes == labeled.classes == []
    want = load(f"npz:{tmp_path / 'labeled.npz'}", val_fraction=0.3)
    assert (want.val.images == labeled.val.images).all()


def test_a_set_by_name_without_its_labels():
    data, labeled = load("digits", task="embedding"), load("digits")
    assert (data.val.images == labeled.val.images).all()
    assert data.classes == []
    assert data.test.targets.fetch(labeled.test.labels[:2]) is None


def test_what_is_refused(tmp_path):
    paint(tmp_path / "pair" / "images", "a.png")
    paint(tmp_path / "pair" / "masks", "a.png")
    (tmp_path / "empty").mkdir()
    paint(tmp_path / "twice" / "train", "a.png")
    paint(tmp_path / "twice" / "training", "b.png")
    for path, words in (
        ("pair", "holds images with masks; give the folder of the images alone"),
        ("empty", "there is no picture in"),
        ("twice", "both hold the train part"),
        ("absent", "there is no folder"),
    ):
        with pytest.raises(DataError, match=words):
            read(tmp_path / path)
    np.savez(tmp_path / "none.npz", train_labels=np.arange(3))
    np.savez(
        tmp_path / "sizes.npz",
        train_images=np.zeros((4, 8, 8), np.uint8),
        test_images=np.zeros((4, 6, 8), np.uint8),
    )
    for file, words in (("none", "has no array 'images'"), ("sizes", "resize both to one size")):
        with pytest.raises(DataError, match=words):
            load(f"npz:{tmp_path / file}.npz", task="embedding")
