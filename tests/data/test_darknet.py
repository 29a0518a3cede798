"""Lists of image paths in place of folders, as darknet, CVAT and others leave them."""

import shutil

import pytest
import torch
from box_folder_files import NAMES, picture, yolo

from selfdistill.core import DataError
from selfdistill.data import load

PARTS = {"train": "train", "val": "valid", "test": "test"}


def read(path, **options):
    return load(f"folder:{path}", task="detection", **options)


def listed(folder, place, together=False, prefix="data/obj/"):
    """The pictures of a set in one folder, and lists of them with a prefix."""
    images, labels = place / "obj", place / ("obj" if together else "labels")
    if not together:
        images = place / "images"
    for part, name in PARTS.items():
        pictures = sorted((folder / "images" / part).iterdir())
        for image in pictures:
            for source, goal in (
                (image, images),
                (folder / "labels" / part / f"{image.stem}.txt", labels),
            ):
                goal.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, goal)
        (place / f"{name}.txt").write_text("".join(f"{prefix}{p.name}\n" for p in pictures))
    (place / "obj.names").write_text("\n".join(NAMES))
    (place / "obj.data").write_text("classes = 3\ntrain = data/train.txt\nvalid = data/valid.txt\n")
    return place


@pytest.mark.parametrize(
    ("together", "prefix"),
    [
        (True, "obj/"), (True, "data/obj/"), (True, "/home/me/darknet/data/obj/"),
        (True, "build\\x64\\data\\obj\\"), (False, "./images/"), (False, "data/images/"),
    ],
)  # fmt: skip
def test_the_parts_of_lists(tmp_path, together, prefix):
    want = read(yolo(tmp_path / "set"))
    data = read(listed(tmp_path / "set", tmp_path / "darknet", together, prefix))
    assert data.classes == NAMES
    assert (len(data.train), len(data.val), len(data.test)) == (6, 2, 3)
    for part in PARTS:
        ours, expected = getattr(data, part), getattr(want, part)
        assert torch.equal(ours.targets.rows, expected.targets.rows)
        assert torch.equal(ours.images, expected.images)


def test_folders_of_parts_come_before_lists(tmp_path):
    folder = yolo(tmp_path / "set")
    (folder / "train.txt").write_text("./images/elsewhere/x.jpg\n")
    assert len(read(folder).train) == 6


@pytest.mark.parametrize("text", ["a/0.png\n", "a/0.png 0\n", "\xff", "", "../set/a/0.png\n"])
def test_lists_beside_class_folders_are_no_boxes(tmp_path, text):
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(6):
            picture("x", (8, 8)).save(tmp_path / "set" / name / f"{number}.png")
    for part in ("train", "test"):
        (tmp_path / "set" / f"{part}.txt").write_text(text, encoding="latin-1")
    assert len(load(f"folder:{tmp_path / 'set'}").classes) == 2


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda p: (p / "obj/train2.png").unlink(),
            r"names the picture .*train2\.png, and there is",
        ),
        (
            lambda p: (p / "train.txt").write_text("obj/train0.png\n../x.png\n"),
            "and there is none of this name",
        ),
        (lambda p: (p / "valid.txt").write_text("obj/a.png\n"), "and there is none of this name"),
        (lambda p: (p / "valid.txt").write_text("\n"), "names no picture"),
        (lambda p: (p / "train.txt").unlink(), "in none of the layouts"),
        (lambda p: (p / "obj/train2.txt").unlink(), r"train2\.png has no labels .*train2\.txt"),
        (lambda p: (p / "obj.names").write_text("a\na\n"), "two classes .* are called 'a'"),
    ],
)
def test_faults_are_told(tmp_path, damage, sentence):
    folder = listed(yolo(tmp_path / "set"), tmp_path / "darknet", together=True)
    damage(folder)
    with pytest.raises(DataError, match=sentence):
        read(folder)


def test_a_missing_label_file_may_mean_no_object(tmp_path):
    folder = listed(yolo(tmp_path / "set"), tmp_path / "darknet", together=True)
    (folder / "obj/train2.txt").unlink()
    assert len(read(folder, empty_images="missing").train) == 6
