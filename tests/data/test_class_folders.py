import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.core import DataError
from selfdistill.data import class_folders, load
from selfdistill.data.hold_out import subsample
from selfdistill.data.images import ImageFiles
from selfdistill.data.in_memory import InMemoryImages


def picture(path: Path, value: int = 0, size: tuple[int, int] = (8, 8)) -> Path:
    """A picture of width × height whose every byte is `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for i in range(4):
        picture(tmp_path / "train" / "ant" / f"{i}.png", i)
        picture(tmp_path / "train" / "bee" / "images" / f"{i}.JPEG", 100 + i)
    return tmp_path


def name(path: Path) -> str:
    return f"folder:{path}"


def test_class_folders_alone(folder):
    data = load(name(folder / "train"), val_fraction=0.25)
    assert data.classes == ["ant", "bee"]
    assert (len(data.train), len(data.val), data.test) == (6, 2, None)
    assert data.val.labels.tolist() == [0, 1]
    assert isinstance(data.train, InMemoryImages)
    assert data.train.shape == (3, 8, 8)
    assert (data.flip, data.crop_padding, data.resized_crop) == (True, 1, False)


def test_pixels_and_labels(folder):
    data = load(name(folder), val_fraction=0)
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    means = data.train.images.float().mean((1, 2, 3))
    torch.testing.assert_close(means, torch.tensor([0.0, 1, 2, 3, 100, 101, 102, 103]))
    assert data.val is None
    assert data.test is None


def test_val_has_the_last_word_where_there_is_no_test(folder):
    picture(folder / "val" / "bee" / "x.png", 7)
    data = load(name(folder), val_fraction=0.25)
    assert (len(data.train), len(data.val), len(data.test)) == (6, 2, 1)
    assert data.test.labels.tolist() == [1]


def test_three_parts_are_used_as_they_are(folder):
    picture(folder / "val" / "bee" / "x.png")
    picture(folder / "test" / "ant" / "x.png")
    data = load(name(folder), val_fraction=0.25)
    assert (len(data.train), len(data.val), len(data.test)) == (8, 1, 1)


def test_tiny_imagenet(folder):
    for i, label in enumerate(("bee", "ant", "bee")):
        picture(folder / "val" / "images" / f"val_{i}.JPEG", 10 * i)
        with (folder / "val" / "val_annotations.txt").open("a") as file:
            file.write(f"val_{i}.JPEG\t{label}\t0\t32\t44\t62\n")
    picture(folder / "test" / "images" / "test_0.JPEG")  # has no label
    data = load(name(folder), val_fraction=0.25)
    assert data.test.labels.tolist() == [1, 0, 1]
    assert data.test.images.float().mean((1, 2, 3)).tolist() == [0, 10, 20]


def test_only_what_the_limit_keeps_is_decoded(folder):
    full = class_folders.read_class_folders(folder).train
    kept = subsample(full, 4)
    paths = {kept.path(i) for i in range(4)}
    broken = next(path for i in range(8) if (path := full.path(i)) not in paths)
    Path(broken).write_bytes(b"no picture")
    assert len(load(name(folder), val_fraction=0, max_train_images=4, image_size=8).train) == 4
    with pytest.raises(DataError, match=re.escape(broken)):
        load(name(folder), val_fraction=0, image_size=8)


def test_pictures_of_many_sizes_become_224(folder):
    picture(folder / "train" / "ant" / "wide.png", size=(30, 10))
    assert load(name(folder)).train.shape == (3, 224, 224)
    assert load(name(folder), image_size=6).train.shape == (3, 6, 6)


def test_large_sets_are_streamed(folder, monkeypatch):
    monkeypatch.setattr(class_folders, "_IN_MEMORY", 100)
    data = load(name(folder), image_size=16)
    assert isinstance(data.train, ImageFiles)
    assert (data.mean, data.std) == class_folders.IMAGENET
    assert (data.crop_padding, data.resized_crop) == (0, True)
    assert data.train.fetch(torch.tensor([0, 5])).shape == (2, 3, 16, 16)


def test_center_keeps_the_middle(tmp_path):
    columns = np.zeros((10, 30, 3), np.uint8)
    columns[:, 10:20] = 200
    Image.fromarray(columns).save(tmp_path / "x.png")
    images = ImageFiles([tmp_path / "x.png"], torch.tensor([0]), (10, 10))
    assert (images.fetch(torch.tensor([0])) == 200).all()


def test_zoom_cuts_off_the_border(tmp_path):
    square = np.zeros((256, 256, 3), np.uint8)
    square[16:240, 16:240] = 200
    Image.fromarray(square).save(tmp_path / "x.png")
    cut = ImageFiles([tmp_path / "x.png"], torch.tensor([0]), (224, 224), 256 / 224)
    assert (cut.fetch(torch.tensor([0])) == 200).all()


def test_hidden_and_foreign_files_are_left_out(folder):
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "ant" / "notes.txt").touch()
    (folder / "train" / "ant" / "._0.png").touch()
    assert len(load(name(folder), val_fraction=0).train) == 8


def test_unicode_path(tmp_path):
    for label in ("ä", "日本"):
        picture(tmp_path / label / "ß ö.png")
    assert load(name(tmp_path), val_fraction=0).classes == ["ä", "日本"]


def fails(path: Path, message: str, **options) -> None:
    with pytest.raises(DataError, match=message) as fault:
        load(name(path), **options)
    assert "\n" not in str(fault.value)


def test_missing_folder(folder):
    fails(folder / "trian", r"there is no folder .*did you mean 'train'")


def test_empty_folder(tmp_path):
    fails(tmp_path, r"no picture in class folders below .*FOLDER/CLASS/PICTURE")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("set.zip", "unpack it and give the folder"),
        ("set.tar.gz", "unpack it and give the folder"),
        ("labels.CSV", "give csv:"),
        ("0.png", "give the folder of the images"),
    ],
)
def test_a_file_in_place_of_a_folder(tmp_path, name, remedy):
    (tmp_path / name).write_bytes(b"")
    fails(tmp_path / name, f"is no folder; {remedy}")


def test_class_without_pictures(folder):
    (folder / "train" / "cow").mkdir()
    fails(folder, "there is no picture in .*cow; add some or remove the folder")


def test_one_class(tmp_path):
    picture(tmp_path / "ant" / "0.png")
    fails(tmp_path, "has the one class 'ant'; two class folders are the least")
    (tmp_path / "labels.csv").write_text("file,label")
    fails(tmp_path, f"are the least; --data csv:{tmp_path / 'labels.csv'} reads classes")


def test_a_table_elsewhere_is_not_offered(tmp_path):
    (tmp_path / "budget.csv").write_text("month,sum")
    picture(tmp_path / "set" / "ant" / "0.png")
    fails(tmp_path / "set", "two class folders are the least$")
    picture(tmp_path / "train" / "0.png")
    fails(tmp_path / "train", "--data csv:.*budget.csv")


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["images", "annotations/trimaps"], "hold images and what belongs to them"),
        (["JPEGImages", "Annotations", "ImageSets"], "give --task segmentation or detection"),
        (["bounding_box_train", "bounding_box_test", "query"], "look like parts of the data"),
        (["split-train", "split-val"], "call them train, val and test"),
    ],
)
def test_folders_that_are_no_classes(tmp_path, folders, words):
    for inner in folders:
        picture(tmp_path / inner / "a.png")
    with pytest.raises(DataError, match=words):
        load(name(tmp_path))


@pytest.mark.parametrize("names", [("train", "bus"), ("masks", "gloves"), ("test tube", "flask")])
def test_classes_of_such_names(tmp_path, names):
    for inner in names:
        for i in range(2):
            picture(tmp_path / inner / f"{i}.png")
    assert load(name(tmp_path), val_fraction=0).classes == sorted(names)


def test_unknown_class_in_val(folder):
    picture(folder / "val" / "bees" / "0.png")
    fails(folder, r"bees is no class of the training set \(did you mean 'bee'\?\)")


def test_unknown_class_in_annotations(folder):
    (folder / "val").mkdir()
    (folder / "val" / "val_annotations.txt").write_text("a.JPEG\tbeee\nb.JPEG")
    fails(folder, r"gives a.JPEG the class 'beee', .*did you mean 'bee'")


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_corrupt_picture_is_named(folder, keep):
    broken = picture(folder / "train" / "ant" / "1.png", size=(64, 64))
    broken.write_bytes(broken.read_bytes()[:keep])
    fails(folder, re.escape(str(broken)), image_size=8)
