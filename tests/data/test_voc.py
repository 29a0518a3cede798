"""Pascal VOC's layout, compared with torchvision's reader; what is said of faults."""

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import torchvision
from box_folder_files import page, picture, truth, voc
from torchvision.datasets import VOCDetection

from selfdistill.core import DataError, ResourceError
from selfdistill.data import load


def read(path, **options):
    return load(f"folder:{path}", task="detection", **options)


@pytest.fixture
def directory(tmp_path):
    return voc(tmp_path / "set")


def test_sizes_of_boxes_equal_torchvisions_reading(directory):
    rows = read(directory, image_size=64).train.targets.rows
    for row, (name, size, _) in zip(rows, truth()["train"], strict=True):
        tree = ElementTree.parse(directory / "Annotations" / f"{name}.xml").getroot()
        content = VOCDetection.parse_voc_xml(tree)["annotation"]
        want = [
            [int(o["bndbox"]["xmax"]) - int(o["bndbox"]["xmin"]) + 1,  # its last pixel counts
             int(o["bndbox"]["ymax"]) - int(o["bndbox"]["ymin"]) + 1]
            for o in content.get("object", [])
        ]  # fmt: skip
        kept = row[row[:, 0] >= 0]
        want = torch.tensor(want).reshape(-1, 2) * 64 / max(size)
        torch.testing.assert_close(kept[:, 3:] - kept[:, 1:3], want, rtol=0.02, atol=0)


def test_without_lists_all_are_training_pictures(directory):
    for file in (directory / "ImageSets" / "Main").iterdir():
        file.unlink()
    data = read(directory, val_fraction=0.2)
    assert (len(data.train), len(data.val), data.test) == (9, 2, None)


def test_names_of_classes_and_another_folder(directory):
    (directory / "JPEGImages").rename(directory / "images")
    (directory / "classes.txt").write_text("cat\nbee\nant\ndog\n")
    data = read(directory)
    assert data.classes == ["cat", "bee", "ant", "dog"]
    assert data.train.targets.rows[0, 0, 0] == 2
    (directory / "classes.txt").write_text("cart\nbee\nant\n")
    with pytest.raises(DataError, match=r"'cat' in .*xml is no class \(did you mean 'cart'\?\)"):
        read(directory)


def test_difficult_objects_are_left_out(directory):
    before = int(read(directory).train.targets.counts(3).sum())
    file = directory / "Annotations" / "train1.xml"
    file.write_text(file.read_text().replace("<difficult>0", "<difficult>1", 1))
    assert read(directory).train.targets.counts(3).sum() == before - 1


def test_a_size_that_is_not_given_is_looked_up(directory):
    want = read(directory).train
    file = directory / "Annotations" / "train1.xml"
    file.write_text(file.read_text().replace("<width>64</width>", ""))
    result = read(directory).train
    assert torch.equal(result.targets.rows, want.targets.rows)


def test_a_missing_annotation_is_allowed_on_demand(directory):
    (directory / "Annotations" / "train5.xml").unlink()
    with pytest.raises(DataError, match=r"train5.png has no annotation .*--empty-images missing"):
        read(directory)
    assert int(read(directory, empty_images="missing").train.targets.empty().sum()) == 1


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda p: (p / "JPEGImages" / "val0.png").unlink(), "no picture .*val0.jpg, which is ann"),
        (
            lambda p: (p / "Annotations" / "val0.xml").write_text("<a>\n<b></a>"),
            r"cannot read the annotation .*val0.xml \(mismatched tag: line 2",
        ),
        (
            lambda p: (p / "Annotations" / "val0.xml").write_text(
                page((56, 40), [(0, 1, 1, 9, 9)]).replace("<name>ant</name>", "")
            ),
            "an object in .*val0.xml lacks its name or a corner",
        ),
        (
            lambda p: (p / "Annotations" / "val0.xml").write_text(
                page((56, 40), [(0, 1, 1, 9, 9)]).replace("<xmax>9", "<xmax>x")
            ),
            "cannot read the annotation .*val0.xml",
        ),
        (
            lambda p: (p / "Annotations" / "val0.xml").write_text(
                page((56, 40), [(0, 1, 1, 50, 9)])
            ),
            r"the box \(1, 1, 50, 9\) in .*val0.png, which is 40×56, reaches out",
        ),
        (lambda p: (p / "ImageSets" / "Main" / "train.txt").unlink(), "no training part beside"),
    ],
)
def test_faults_are_told(directory, damage, sentence):
    damage(directory)
    with pytest.raises(DataError, match=sentence):
        read(directory)


def test_voc_by_name_joins_two_years(tmp_path, monkeypatch):
    requests = []

    class Fake:
        def __init__(self, root, *, download, year, image_set):
            requests.append((year, image_set))
            folder = Path(root) / f"{year}{image_set}"
            folder.mkdir()
            picture(year, (48, 64)).save(folder / "0.png")
            (folder / "0.xml").write_text(page((48, 64), [(0, 1, 1, 9, 9)]).replace("ant", "sheep"))
            self.images, self.targets = [str(folder / "0.png")], [str(folder / "0.xml")]

    monkeypatch.setattr(torchvision.datasets, "VOCDetection", Fake)
    data = load("voc", root=tmp_path, task="detection", val_fraction=0)
    assert requests == [("2007", "trainval"), ("2012", "trainval"), ("2007", "test")]
    assert (len(data.train), data.val, len(data.test)) == (2, None, 1)
    assert (len(data.classes), data.layout) == (20, "Pascal VOC")
    assert data.test.targets.rows[0, 0].tolist() == [data.classes.index("sheep"), 1, 9, 9, 17]


def test_voc_that_cannot_be_downloaded(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise OSError("no route")

    monkeypatch.setattr(torchvision.datasets, "VOCDetection", fail)
    with pytest.raises(ResourceError, match=r"cannot get 'voc' \(no route\).*VOCDetection"):
        load("voc", root=tmp_path, task="detection")


def one_folder(directory):
    for kind in ("Annotations", "JPEGImages"):
        for file in (directory / kind).iterdir():
            file.rename(directory / file.name)
        (directory / kind).rmdir()


def lower_case(directory):
    (directory / "Annotations").rename(directory / "annotations")
    (directory / "JPEGImages").rename(directory / "images")


def beside_the_images(directory):
    for file in (directory / "Annotations").iterdir():
        file.rename(directory / "JPEGImages" / file.name)
    (directory / "Annotations").rmdir()
    (directory / "JPEGImages").rename(directory / "images")


def parts(directory):
    for name, part in (("train", "train"), ("valid", "val"), ("test", "test")):
        (directory / name).mkdir()
        for kind in ("Annotations", "JPEGImages"):
            for file in (directory / kind).glob(f"{part}*"):
                file.rename(directory / name / file.name)


@pytest.mark.parametrize("change", [one_folder, lower_case, beside_the_images, parts])
def test_other_places(directory, change):
    want = read(directory)
    change(directory)
    if change is parts:
        shutil.rmtree(directory / "ImageSets")
        for kind in ("Annotations", "JPEGImages"):
            (directory / kind).rmdir()
    data = read(directory)
    assert torch.equal(data.train.targets.rows, want.train.targets.rows)
    assert (len(data.val), len(data.test)) == (2, 3)


def test_lists_of_many_forms(directory):
    want = read(directory)
    for kind, ending in (("Annotations", "xml"), ("JPEGImages", "png")):
        (directory / kind / f"train0.{ending}").rename(directory / kind / f"my train 1.{ending}")
    main = directory / "ImageSets" / "Main"
    lines = ["my train 1", "train1.png", "JPEGImages\\train2.png", "train3  1", "./x/train4"]
    text = "\ufeff" + "\r\n".join([*lines, "train5 -1"])
    (main / "train.txt").write_bytes(text.encode())
    (main / "cat_train.txt").write_text("train1  1")
    assert torch.equal(read(directory).train.targets.rows, want.train.targets.rows)
    (main / "train.txt").rename(main / "trainval.txt")
    (main / "val.txt").write_text("train1")
    data = read(directory, val_fraction=0)
    assert torch.equal(data.train.targets.rows, want.train.targets.rows)
    assert (data.val, len(data.test)) == (None, 3)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("<width>64", "<width>" + "9" * 30, "gives a picture the side 999"),
        ("<width>64", "<width>-1", "gives a picture the side -1"),
        ("<width>64", "<width>wide", "gives a picture the side wide"),
        (
            "<annotation>",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><annotation>&x;&y;",
            "cannot read the anno",
        ),
        ("<annotation>", "<?xml version='1.0' encoding='none'?><annotation>", "cannot read the an"),
    ],
)
def test_more_faults(directory, old, new, sentence):
    file = directory / "Annotations" / "train1.xml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DataError, match=sentence):
        read(directory)


def test_other_spellings_of_a_size_and_no_box(directory):
    want = read(directory).train.targets.rows
    file = directory / "Annotations" / "train1.xml"
    text = file.read_text().replace("<width>64<", "<width> 64.0 <")
    file.write_text(text.replace("</size>", "</size><object><name>ant</name></object>"))
    with pytest.raises(DataError, match=r"train1\.png.* lacks a corner"):
        read(directory)
    assert torch.equal(read(directory, invalid_boxes="fix").train.targets.rows, want)
