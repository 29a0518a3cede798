"""COCO's layout and its variants, compared with another reader; what is said of faults."""

import json
import shutil

import pytest
import torch
from box_folder_files import coco
from faster_coco_eval import COCO
from PIL import Image

from selfdistill.core import DataError
from selfdistill.data import load

FILE = "annotations/instances_train2017.json"


def read(path, **options):
    return load(f"folder:{path}", task="detection", **options)


def edit(path, change, file=FILE):
    content = json.loads((path / file).read_text())
    change(content)
    (path / file).write_text(json.dumps(content))


@pytest.fixture
def directory(tmp_path):
    return coco(tmp_path / "set")


def test_equals_another_reader(directory):
    rows = read(directory, image_size=64).train.targets.rows
    reference = COCO(str(directory / FILE))
    for row, (number, shape) in zip(rows, reference.imgs.items(), strict=True):
        scale = 64 / max(shape["height"], shape["width"])
        entries = reference.loadAnns(reference.getAnnIds(imgIds=[number]))
        sides = torch.tensor([entry["bbox"][2:] for entry in entries]).reshape(-1, 2) * scale
        kept = row[row[:, 0] >= 0]
        torch.testing.assert_close(kept[:, 3:] - kept[:, 1:3], sides, rtol=0.02, atol=0)
        labels = [sorted(reference.cats).index(entry["category_id"]) for entry in entries]
        assert kept[:, 0].tolist() == labels


def test_crowds_are_left_out(directory):
    before = read(directory).train.targets.counts(3).sum()
    edit(directory, lambda c: c["annotations"][0].update(iscrowd=1))
    assert read(directory).train.targets.counts(3).sum() == before - 1


def test_pictures_beside_their_annotations(directory):
    """Roboflow's form, in which the validation part is called valid."""
    want = read(directory).val.targets.rows
    for part, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        shutil.move(directory / f"{part}2017", directory / folder)
        old = directory / "annotations" / f"instances_{part}2017.json"
        shutil.move(old, directory / folder / "_annotations.coco.json")
    data = read(directory)
    assert (len(data.train), len(data.test)) == (6, 3)
    assert torch.equal(data.val.targets.rows, want)
    assert len(read(directory / "train", val_fraction=0).train) == 6  # one part alone


@pytest.mark.parametrize("folder", ["images/train2017", "images", "."])
def test_pictures_in_other_usual_places(directory, folder):
    (directory / folder).parent.mkdir(exist_ok=True)
    if folder == "images/train2017":
        shutil.move(directory / "train2017", directory / folder)
    else:
        shutil.copytree(directory / "train2017", directory / folder, dirs_exist_ok=True)
        shutil.rmtree(directory / "train2017")
    assert len(read(directory).train) == 6


def test_other_annotations_are_passed_over(directory):
    for name in ("captions_train2017", "person_keypoints_train2017", "image_info_test2017"):
        (directory / "annotations" / f"{name}.json").write_text("{}")
    assert len(read(directory).train) == 6


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["images"].clear(), "there is no picture in .*instances_train2017.json"),
        (lambda c: c.pop("categories"), "not in COCO's form, at categories: Field required"),
        (lambda c: c["annotations"][2].pop("bbox"), "lacks a corner"),
        (lambda c: c["annotations"][2]["bbox"].pop(), "annotation 2 .* bbox of 3 numbers"),
        (lambda c: c["annotations"][1].update(image_id=5), "annotation 1 .* unknown image, id 5"),
        (
            lambda c: c["annotations"][1].update(category_id=4),
            "annotation 1 .* the category 4; there are 3, 3 … 90",
        ),
        (lambda c: c["images"][1].update(id=100), "two pictures .* have the same id"),
        (lambda c: c["images"][3].update(width=-3), "the side -3"),
        (lambda c: c["images"][3].update(width=10**30), "the side 1e"),
        (lambda c: c["images"][3].update(width="wide"), "the side wide"),
        (lambda c: c["images"][3].update(file_name="a" * 300), "and there is none"),
        (lambda c: c["images"][3].update(file_name="a" * 5000), "which is no file beside it"),
        (lambda c: c["images"][3].update(file_name="a\0b"), "which is no file beside it"),
        (lambda c: c["categories"].clear(), "there is no category in"),
        (lambda c: c["categories"][0].update(id=3), "two categories .* have the same id"),
        (lambda c: c["categories"][0].update(name="ant"), "two classes .* are called 'ant'"),
        (lambda c: c["images"][3].update(file_name="../../x.png"), r"x\.png, which is outside of"),
        (lambda c: c["images"][3].update(file_name="/x/y.png"), "which is no file beside it"),
        (lambda c: c["images"][3].update(file_name="C:\\y.png"), "which is no file beside it"),
        (lambda c: c["annotations"][1].update(bbox=[]), r"in .*train0.png.* lacks a corner"),
        (lambda c: c["images"][3].update(file_name="x.png"), r"picture .*x\.png, and there is no"),
        (lambda c: c["images"][5].update(width=63), "64×48 and its annotation is for 63×48"),
        (lambda c: c["annotations"][0]["bbox"].__setitem__(2, 0), "in .*train0.png.* has no area"),
        (lambda c: c["annotations"][0]["bbox"].__setitem__(2, 99), "reaches out of the picture"),
        (lambda c: c["categories"][0].update(name="dog"), r"the category 90 'cat', which is 'dog'"),
    ],
)  # fmt: skip
def test_faults_are_told(directory, change, sentence):
    edit(directory, change)
    with pytest.raises(DataError, match=sentence):
        read(directory)


@pytest.mark.parametrize("size", [{}, {"width": 0, "height": 0}, {"width": None}, {"height": ""}])
def test_a_size_that_is_not_given_is_read_from_the_picture(directory, size):
    want = read(directory).train.targets.rows

    def change(content):
        for image in content["images"]:
            del image["width"], image["height"]
            image.update(size)

    edit(directory, change)
    assert torch.equal(read(directory).train.targets.rows, want)


def test_leniencies(directory):
    want = read(directory).train.targets.rows

    def change(content):
        for image in content["images"]:
            image["file_name"] = "..\\train2017\\" + image["file_name"]
        for annotation in content["annotations"]:
            annotation["score"] = 0.5
        content["annotations"].append({"image_id": 100, "category_id": 3, "bbox": []})

    edit(directory, change)
    text = (directory / FILE).read_text()
    (directory / FILE).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert torch.equal(read(directory, invalid_boxes="fix").train.targets.rows, want)


def test_a_turned_picture_is_said(directory):
    exif = Image.Exif()
    exif[0x0112] = 8
    file = directory / "train2017" / "train1.png"
    picture = Image.open(file)
    picture.load()
    picture.save(file, exif=exif)
    with pytest.raises(DataError, match="48×64 as its EXIF tag turns it and its annotation"):
        read(directory)


def test_a_file_of_another_name(directory):
    folder = directory / "annotations"
    for part in ("val", "test"):
        (folder / f"instances_{part}2017.json").unlink()
    (directory / FILE).rename(folder / "instances_default.json")
    (directory / "train2017").rename(directory / "images")
    assert len(read(directory, val_fraction=0).train) == 6
    shutil.copy(folder / "instances_default.json", folder / "instances_train.json")
    with pytest.raises(DataError, match=r"instances_default\.json looks like a part"):
        read(directory)


def test_a_file_that_is_no_json(directory):
    (directory / FILE).write_text('{"images": [\n 1, }')
    with pytest.raises(
        DataError, match=r"train2017.json is not in COCO's form: Invalid JSON.*line"
    ):
        read(directory)


def test_two_files_for_one_part(directory):
    shutil.copy(directory / FILE, directory / "annotations" / "instances_train2014.json")
    with pytest.raises(DataError, match=r"train2014.* and .*train2017.* both hold the train"):
        read(directory)


def test_a_category_that_the_training_part_lacks(directory):
    def add(content):
        content["categories"].append({"id": 91, "name": "dog"})

    edit(directory, add, "annotations/instances_val2017.json")
    with pytest.raises(DataError, match="calls the category 91 'dog', which is none in the train"):
        read(directory)
