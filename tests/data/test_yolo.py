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


def test_polygons_and_scores(directory):
    file = directory / "labels" / "train" / "train2.txt"
    file.write_text("0 .5 .5 .5 .5\n")
    want = read(directory).train.targets.rows[2]
    for text in (
        "0 .5 .5 .5 .5 .87\n",
        "0.0 .25 .25 .75 .25 .75 .75 .25 .75\n",
        "0 .25 .5 .5 .25 .75 .5 .5 .75 .4 .6\r\n",
    ):
        file.write_text(text)
        torch.testing.assert_close(read(directory).train.targets.rows[2], want)
    file.write_text("0 .5 .5 .5 .5\n1\n")
    with pytest.raises(DataError, match=r"train2\.png.* lacks a corner"):
        read(directory)
    torch.testing.assert_close(read(directory, invalid_boxes="fix").train.targets.rows[2], want)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: {0: ant, '1': bee, 2: no}\n", ["ant", "bee", "no"]),
        ("names: [yes, 1.50, ~]\n", ["yes", "1.50", "~"]),
        ("\ufeffnames: [a, b, c]\n", ["a", "b", "c"]),
    ],
)
def test_names_are_text(directory, text, names):
    (directory / "data.yaml").write_text(text, encoding="utf-8")
    assert read(directory).classes == names


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BOMB + "names: *a59\n", "each must be one name"),
        (BOMB + "names: [a, *a59]\n", "each must be one name"),
        (BOMB + "names: {<<: [*a59]}\n", "each must be one name"),
        ("names: {ant: 0, bee: 1}\n", "must be numbered 0 … 1"),
        ("names: {0: ant, 0: bee}\n", "must be numbered 0 … 1"),
        ("names: {0: ant, 99999999999999999999: bee}\n", "must be numbered 0 … 1"),
        ("names: [ant, bee, ant]\n", "two classes .* are called 'ant'"),
        ("names: " + "[" * 5000 + "]" * 5000, "cannot read .*data.yaml|each must be one name"),
        ("names: !!python/object/apply:os.system ['true']\n", "there are 1 names"),
    ],
)
def test_names_that_are_none(directory, text, sentence):
    (directory / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=sentence) as error:
        read(directory)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("label", ["1e15", "10000", "inf"])
def test_a_class_without_names_has_a_limit(directory, label):
    (directory / "data.yaml").unlink()
    write(f"{label} .5 .5 .1 .1\n")(directory)
    with pytest.raises(DataError, match=r"9999 is the last|line 1 of"):
        read(directory)


def test_pictures_beside_their_labels(directory):
    want = read(directory).train.targets.rows
    flat = directory.parent / "flat"
    for part in ("train", "val"):
        (flat / part).mkdir(parents=True)
        for kind in ("images", "labels"):
            for file in (directory / kind / part).iterdir():
                shutil.copy(file, flat / part)
    shutil.copy(directory / "data.yaml", flat)
    assert torch.equal(read(flat, val_fraction=0).train.targets.rows, want)
    assert len(read(flat / "train", val_fraction=0).train) == 6
