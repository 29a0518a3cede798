"""Held-out parts of a source that lack classes are told of; what is held out here is not."""

import numpy as np
import pytest
from PIL import Image

from selfdistill.data import load


def write(folder, counts):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((6, 6, 3), 20 * number + len(name), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def said(notes):
    return [note for note in notes if "has no picture of" in note]


@pytest.mark.parametrize("empty", ["a folder", "none"])
def test_of_class_folders(tmp_path, empty):
    write(tmp_path / "train", {"ant": 6, "bee": 6, "cat": 6})
    write(tmp_path / "val", {"ant": 2, "bee": 2, **({"cat": 0} if empty == "a folder" else {})})
    write(tmp_path / "test", {"cat": 3})
    notes = said(load(f"folder:{tmp_path}").notes)
    assert notes == [
        "the validation part has no picture of 1 of 3 classes: 'cat'",
        "the test part has no picture of 2 of 3 classes: 'ant', 'bee'",
    ]


def test_of_a_table(tmp_path):
    write(tmp_path, {"ant": 4, "bee": 4})
    rows = ["file,label,split", "ant/0.png,ant,train", "bee/0.png,bee,train", "ant/1.png,ant,test"]
    rows += ["ant/2.png,ant,train", "bee/2.png,bee,train"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    assert said(load(f"csv:{tmp_path / 'labels.csv'}", val_fraction=0).notes) == [
        "the test part has no picture of 1 of 2 classes: 'bee'"
    ]


def test_many_names_are_cut(tmp_path):
    names = {f"class{number:02}": 1 for number in range(20)}
    write(tmp_path / "train", names)
    write(tmp_path / "test", {"class00": 1})
    (note,) = said(load(f"folder:{tmp_path}", val_fraction=0).notes)
    assert "19 of 20 classes: 'class01', " in note
    assert note.endswith("'class10', …")


def test_nothing_is_said_of_whole_parts_nor_without_labels(tmp_path):
    write(tmp_path / "train", {"ant": 6, "bee": 6})
    write(tmp_path / "val", {"ant": 2, "bee": 2})
    assert not said(load(f"folder:{tmp_path}").notes)
    assert not said(load(f"folder:{tmp_path}", task="embedding").notes)
    assert not said(load(f"folder:{tmp_path / 'train'}", val_fraction=0.1).notes)
