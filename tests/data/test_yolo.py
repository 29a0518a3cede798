"""YOLO's layout and its variants, compared with torchvision's conversion; faults are told."""

import shutil

import pytest
import torch
from box_folder_files import NAMES, yolo
from torchvision.ops import box_convert

from selfdistill.core import DataError
from selfdistill.data import load


def read(path, **options):
    return load(f"folder:{path}", task="detection", **options)


@pytest.fixture
def directory(tmp_path):
    return yolo(tmp_path / "set")


def test_equals_torchvisions_conversion(directory):
    lines = (directory / "labels" / "train" / "train3.txt").read_text().splitlines()
    stored = torch.tensor([[float(x) for x in line.split()] for line in lines])
    scale = torch.tensor([64.0, 48, 64, 48])  # width and height; 8 gray rows are above
    want = box_convert(stored[:, 1:] * scale, "cxcywh", "xyxy") + torch.tensor([0.0, 8, 0, 8])
    row = read(directory).train.targets.rows[3]
    kept = row[row[:, 0] >= 0]
    torch.testing.assert_close(kept, torch.cat([stored[:, :1], want], 1), atol=1e-3, rtol=0)


def test_folders_the_other_way_round(directory):
    want = read(directory).train.targets.rows
    for part, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        (directory / folder).mkdir()
        for kind in ("images", "labels"):
            shutil.move(directory / kind / part, directory / folder / kind)
    shutil.rmtree(directory / "images")
    data = read(directory)
    assert torch.equal(data.train.targets.rows, want)
    assert (len(data.val), len(data.test)) == (2, 3)


def test_years_are_joined(directory):
    for kind in ("images", "labels"):
        shutil.move(directory / kind / "val", directory / kind / "train2012")
    data = read(directory, val_fraction=0)
    assert (len(data.train), data.val, len(data.test)) == (8, None, 3)


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        ("data.yaml", "names: [a, b, c, d]\nnc: 4\n", ["a", "b", "c", "d"]),
        ("mine.yml", "names:\n- a\n- b\n- 3\n", ["a", "b", "3"]),
        ("classes.txt", "a\nb\n\nc\n", ["a", "b", "c"]),
        ("readme.txt", "", ["0", "1", "2"]),
    ],
)
def test_names_of_classes(directory, file, text, names):
    (directory / "data.yaml").unlink()
    (directory / file).write_text(text)
    assert read(directory).classes == names


def test_a_missing_text_file_is_allowed_on_demand(directory):
    (directory / "labels" / "train" / "train5.txt").unlink()
    with pytest.raises(
        DataError, match=r"train5.png has no labels .*train5.txt.*--empty-images missing"
    ):
        read(directory)
    data = read(directory, empty_images="missing")
    assert data.classes == NAMES
    assert int(data.train.targets.empty().sum()) == 1


def test_classes_beside_the_labels_are_no_labels(directory):
    (directory / "labels" / "train" / "classes.txt").write_text("ant\nbee\ncat\n")
    assert len(read(directory).train) == 6


def write(text):
    return lambda directory: (directory / "labels" / "train" / "train2.txt").write_text(text)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (write("0 .5 .5 .1 .1\n\n1 .5 .5 .1\n"), "line 3 of .*train2.txt is '1 .5 .5 .1'; a box"),
        (write("0 .5 .5 .1 .1 .9 .9 .9\n"), "line 1 of .*train2.txt"),
        (write("0 20 30 10 10\n"), "line 1 of .*train2.txt is '0 20 30 10 10'; .* fractions"),
        (write("0 nan .5 .1 .1\n"), "in .*train2.png, .* lacks a corner"),
        (write("1e15 .5 .5 .1 .1\n"), "a box of the class 1000000000000000; there are 3 names"),
        (write("ant .5 .5 .1 .1\n"), "line 1 of .*train2.txt is 'ant"),
        (write("-1 .5 .5 .1 .1\n"), "line 1 of .*train2.txt"),
        (write("3 .5 .5 .1 .1\n"), "train2.txt has a box of the class 3; .* 3 names.* 0 … 2"),
        (write("0 .5 .5 .1 0\n"), r"in .*train2.png, .* has no area"),
        (write("0 .9 .5 .4 .1\n"), r"in .*train2.png, which is 40×56, reaches out"),
        (lambda p: (p / "labels/train/train2.txt").write_bytes(b"\xff\xfe\xfa"), "is not UTF-8"),
        (lambda p: (p / "images/train/train2.png").unlink(), "no picture of the labels .*train2"),
        (lambda p: (p / "data.yaml").write_text("names: [a\nb: c"), r"cannot read .*data.yaml \("),
        (lambda p: (p / "data.yaml").write_text("names:\n  1: a\n"), "must be numbered 0 … 0"),
        (lambda p: (p / "images/train/train2.png").write_bytes(b""), "cannot read the image"),
    ],
)  # fmt: skip
def test_faults_are_told(directory, damage, sentence):
    damage(directory)
    with pytest.raises(DataError, match=sentence):
        read(directory)


def test_no_picture(directory):
    for kind in ("images", "labels"):
        shutil.rmtree(directory / kind / "train")
        (directory / kind / "train").mkdir()
    with pytest.raises(DataError, match=r"there is no picture in .*train"):
        read(directory)
