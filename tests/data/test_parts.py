"""Names of parts, in every layout; files that are passed over; names of classes."""

import os

import numpy as np
import pytest
from PIL import Image
from test_class_folders import picture

from selfdistill.core import DataError
from selfdistill.data import load
from selfdistill.data.listing import Listing, subfolders
from selfdistill.data.notes import data_notes, warn_of_data
from selfdistill.data.parts import resembles_part, split_of_name
from selfdistill.data.text_files import check_class_names, read_lines

SPELLINGS = [
    ("train", "val", "test"),
    ("Training", "Validation", "Testing"),
    ("TRAIN", "valid", "Test"),
    ("train2017", "val2017", "test2017"),
    ("training_set", "dev", "test_set"),
    ("train", "dev-set", "eval"),
    ("trainset", "valset", "evaluation"),
]


@pytest.mark.parametrize("names", SPELLINGS)
def test_usual_names(names):
    assert [split_of_name(name) for name in names] == ["train", "val", "test"]


@pytest.mark.parametrize("name", ["trained", "value", "contest", "device", "class1", "", "2017"])
def test_other_names(name):
    assert split_of_name(name) is None
    assert not resembles_part(name)


@pytest.mark.parametrize("name", ["seg_train", "test-extra", "my val", "unlabeled.test"])
def test_names_that_resemble_a_part(name):
    assert split_of_name(name) is None
    assert resembles_part(name)


def classes_in(folder, names=("ant", "bee"), count=4):
    for i in range(count):
        for name in names:
            picture(folder / name / f"{i}.png", i)


def mask_pairs(folder, count=4):
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        draw = np.random.default_rng(i).integers(0, 3, (8, 8), dtype=np.uint8)
        Image.fromarray(draw).save(folder / "masks" / f"{i}.png")
        Image.fromarray(draw * 80).save(folder / "images" / f"{i}.png")


def box_pairs(folder, count=4):
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        picture(folder / "images" / f"{i}.png", i, (32, 32))
        (folder / "labels" / f"{i}.txt").write_text(f"{i % 2} .5 .5 .4 .4\n")


WRITERS = {"classification": classes_in, "segmentation": mask_pairs, "detection": box_pairs}


def read(path, task="classification", **options):
    return load(f"folder:{path}", task=task, val_fraction=0.25, **options)


@pytest.mark.parametrize("task", WRITERS)
@pytest.mark.parametrize("names", SPELLINGS)
def test_every_task_knows_them(tmp_path, task, names):
    for name in names:
        WRITERS[task](tmp_path / name, count=2 if name == names[1] else 4)
    data = read(tmp_path, task)
    per_class = 2 if task == "classification" else 1
    assert [len(s) for s in (data.train, data.val, data.test)] == [
        4 * per_class,
        2 * per_class,
        4 * per_class,
    ]


@pytest.mark.parametrize("task", WRITERS)
@pytest.mark.parametrize("name", ["holdout", "seg_test", "Prueba"])
def test_a_part_of_another_name_is_refused(tmp_path, task, name):
    for part in ("train", name):
        WRITERS[task](tmp_path / part)
    with pytest.raises(DataError, match=f"{name} looks like a part .* call it train, val or test"):
        read(tmp_path, task)


@pytest.mark.parametrize("task", WRITERS)
def test_a_part_alone(tmp_path, task):
    WRITERS[task](tmp_path / "valid")
    WRITERS[task](tmp_path / "testing")
    with pytest.raises(DataError, match="no training part beside; call that train"):
        read(tmp_path, task)


@pytest.mark.parametrize("task", ["classification"])
def test_two_names_of_one_part(tmp_path, task):
    for name in ("train", "Training"):
        WRITERS[task](tmp_path / name)
    with pytest.raises(DataError, match="both hold the train part"):
        read(tmp_path, task)


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_parts_within_both_folders(tmp_path, task):
    for name in ("Train", "Val"):
        WRITERS[task](tmp_path / name)
        for kind in subfolders(tmp_path / name):
            (tmp_path / kind.name).mkdir(exist_ok=True)
            kind.rename(tmp_path / kind.name / name)
        (tmp_path / name).rmdir()
    data = read(tmp_path, task)
    assert (len(data.train), len(data.val), len(data.test)) == (3, 1, 4)
    (tmp_path / "images" / "test").mkdir()
    with pytest.raises(DataError, match=r"there is no folder .*test, and other parts have one"):
        read(tmp_path, task)


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (("one/ant", "one/bee", "two/ant", "two/bee"), "so they are parts and no classes"),
        (("ant/train", "ant/val", "bee/train", "bee/val"), "put the parts outermost"),
        (("seg_train/a/ant", "seg_test/b/ant"), "looks like a part of the data"),
        (("train", "test"), "no picture in class folders below .*train"),
        (("all/ant", "all/bee"), "did you mean folder:.*all"),
    ],
)
def test_parts_that_would_be_classes(tmp_path, folders, sentence):
    for folder in folders:
        picture(tmp_path / folder / "x.png")
    with pytest.raises(DataError, match=sentence):
        read(tmp_path)


@pytest.mark.parametrize("classes", [("bus", "train"), ("control", "test"), ("dev", "ops", "qa")])
def test_a_class_may_be_called_as_a_part_is(tmp_path, classes):
    classes_in(tmp_path, classes)
    assert read(tmp_path).classes == list(classes)


def test_what_lies_beside_is_said(tmp_path):
    classes_in(tmp_path / "train")
    picture(tmp_path / "train" / "loose.png")
    picture(tmp_path / "test" / "unlabeled.png")
    picture(tmp_path / "drawings" / "x.png")
    data = read(tmp_path)
    assert data.test is None
    assert [note.replace(str(tmp_path), "PATH") for note in data.notes] == [
        "beside the parts, PATH holds drawings, which is left out",
        "images in PATH/train itself are of no class and left out: 1",
        "images in PATH/test itself are of no class and left out: 1",
        "PATH/test holds no folders of classes and is left out",
    ]


@pytest.mark.parametrize("arrays", [("train_images", "train_labels"), ("x_train", "y_train"),
                                    ("Training_images", "Training_labels")])  # fmt: skip
def test_parts_in_an_archive(tmp_path, arrays):
    images, labels = np.zeros((6, 8, 8), np.uint8), np.arange(6) % 2
    extra = {"x_valid": images[:2], "y_valid": labels[:2]}
    np.savez(tmp_path / "x.npz", **dict(zip(arrays, (images, labels), strict=True)), **extra)
    data = load(f"npz:{tmp_path / 'x.npz'}")
    assert (len(data.train), len(data.val)) == (6, 2)
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=labels, extra_images=images)
    with pytest.raises(DataError, match=r"'extra_images' in .* is of no known part"):
        load(f"npz:{tmp_path / 'x.npz'}")


def test_hidden_folders_links_and_pipes_are_not_walked(tmp_path):
    classes_in(tmp_path)
    picture(tmp_path / "ant" / ".ipynb_checkpoints" / "0-checkpoint.png")
    picture(tmp_path / "ant" / "__MACOSX" / "0.png")
    picture(tmp_path / "ant" / ".hidden.png")
    for name in ("up", "again"):
        (tmp_path / "ant" / name).symlink_to(tmp_path)
    (tmp_path / "bee" / "circle").symlink_to(tmp_path / "bee" / "circle")
    os.mkfifo(tmp_path / "bee" / "pipe.png")
    data = read(tmp_path)
    assert len(data.train) + len(data.val) == 8
    assert "no regular file (1)" in data.notes[0]
    assert data.notes[1].startswith(f"link '{tmp_path / 'bee' / 'circle'}' leads nowhere")
    (tmp_path / "cow").symlink_to(tmp_path / "ant")
    with pytest.raises(DataError, match="cow is a link to another folder of this set"):
        read(tmp_path)


@pytest.mark.parametrize("places", [["cow"], ["ant/9.png"], ["cow", "dog", "ant/9.png"]])
def test_links_that_lead_nowhere_are_said(tmp_path, places):
    """A class on a disk that is not mounted would be missing without a word."""
    classes_in(tmp_path)
    for place in places:
        (tmp_path / place).symlink_to(tmp_path / "unmounted" / place)
    data = read(tmp_path)
    assert len(data.classes) == 2
    note = next(note for note in data.notes if "nowhere" in note)
    named = f"'{tmp_path / places[0]}'" in note and note.startswith("link ")
    assert named
    assert ("and 2 more lead nowhere" in note) is (len(places) == 3)


def test_files_that_are_passed_over_are_counted(tmp_path):
    classes_in(tmp_path)
    picture(tmp_path / "ant" / "photo.png").rename(tmp_path / "ant" / "photo.JFIF")
    for name in ("a.heic", "b.HEIC", "c.psd", "d", "notes.txt"):
        (tmp_path / "bee" / name).touch()
    data = read(tmp_path)
    assert len(data.train) + len(data.val) == 9
    (note,) = data.notes
    assert note.startswith("4 files are passed over")
    assert ".heic (2), .psd (1), no ending (1)" in note


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_two_images_of_one_name(tmp_path, task):
    WRITERS[task](tmp_path)
    picture(tmp_path / "images" / "1.jpg")
    with pytest.raises(DataError, match=r"images/1\.jpg and .*images/1\.png have one name"):
        read(tmp_path, task)


def test_listing_is_sorted(tmp_path):
    for name in ("b.png", "a.JPG", "c.jfif", ".d.png"):
        (tmp_path / name).touch()
    assert list(Listing().by_stem(tmp_path)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"caf\xe9\n", "byte 3 is not UTF-8"), (b"\xff\xfea\0", "byte 0 is not UTF-8")],
)
def test_text_that_is_no_utf8(tmp_path, content, sentence):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_lines(tmp_path / "classes.txt")


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    box_pairs(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfant\r\nbee\r\n")
    assert read(tmp_path, "detection").classes == ["ant", "bee"]


def test_names_of_classes():
    with pytest.raises(DataError, match="two classes in x are called 'a'"):
        check_class_names(["a", "b", "a"], "x")
    with pytest.raises(DataError, match="empty name"):
        check_class_names(["a", " "], "x")
    with pytest.raises(DataError, match="not UTF-8"):
        check_class_names(["a", "b\udcff"], "x")
    (note,) = check_class_names(["cat", "dog", "Cat"], "x")
    assert "'cat' and 'Cat'" in note
    assert len(check_class_names(["\u00e9", "e\u0301"], "x")) == 1


def test_images_that_are_equal_or_plain_are_said(tmp_path):
    classes_in(tmp_path)
    assert "of one color" in data_notes(read(tmp_path))[0]
    draw = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for file in tmp_path.rglob("*.png"):
        Image.fromarray(draw).save(file)
    assert "6 training images that were compared are 1 different" in data_notes(read(tmp_path))[0]


def test_a_class_without_a_box_is_said(tmp_path):
    box_pairs(tmp_path)
    (tmp_path / "classes.txt").write_text("ant\nbee\ncow\n")
    assert any(
        "class 'cow' has no training box" in n for n in data_notes(read(tmp_path, "detection"))
    )


@pytest.mark.parametrize("task", WRITERS)
def test_broken_images_of_all_parts_are_named_at_once(tmp_path, task):
    for name in ("train", "val", "test"):
        WRITERS[task](tmp_path / name)
    files = [next(f for f in sorted((tmp_path / p).rglob("*.png")) if "mask" not in str(f))
             for p in ("train", "test")]  # fmt: skip
    files[0].write_bytes(b"no image")
    files[1].write_bytes(files[1].read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot read") as error:
        read(tmp_path, task)
    assert all(str(file) in str(error.value) for file in files)


@pytest.mark.parametrize("task", WRITERS)
def test_a_path_that_is_no_folder(tmp_path, task):
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name, sentence in (("file", "is no folder"), ("circle", "is no folder"),
                           ("x" * 300, "there is no folder")):  # fmt: skip
        with pytest.raises(DataError, match=sentence):
            read(tmp_path / name, task)
    with pytest.raises(DataError, match=r"is no file; give the \.npz file"):
        load(f"npz:{tmp_path}")
    with pytest.raises(DataError, match="there is no file"):
        load(f"npz:{tmp_path / ('x' * 300)}")


@pytest.mark.parametrize("file", ["classes.txt", "data.yaml", "labels/1.txt"])
def test_no_pipe_is_waited_for(tmp_path, file):
    box_pairs(tmp_path)
    (tmp_path / file).unlink(missing_ok=True)
    os.mkfifo(tmp_path / file)
    with pytest.raises(DataError, match="no regular file"):
        read(tmp_path, "detection")


def test_training_warns_of_the_notes(tmp_path):
    classes_in(tmp_path)
    (tmp_path / "ant" / "x.heic").touch()
    with pytest.warns(UserWarning, match=r"passed over|one color") as warned:
        warn_of_data(read(tmp_path))
    assert "1 file is passed over" in str(warned[0].message)
    assert "of one color" in str(warned[1].message)
