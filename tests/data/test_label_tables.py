import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from selfdistill.core import DataError
from selfdistill.data import load
from selfdistill.data.label_columns import class_names, read_columns
from selfdistill.data.label_tables import read_label_table


def pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        color = np.full((6, 5, 3), sum(map(ord, name)) % 256, np.uint8)
        Image.fromarray(color).save(folder / name, "PNG")


def table(file, *lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def read(file, folder=None):
    """Names from the folder and class names of each part."""
    splits = read_label_table(file)
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    base = folder or file.parent
    return {
        name: {
            Path(part.path(i)).relative_to(base).as_posix(): splits.classes[label]
            for i, label in enumerate(part.labels.tolist())
        }
        for name, part in parts.items()
        if part
    }


FOUR = ("a.png", "b.png", "c.png", "d.png")
ROWS = ("a.png,ant", "b.png,bee", "c.png,ant", "d.png,bee")
LATER = ("e.png,ant", "f.png,bee")
CLASSES = {"a.png": "ant", "b.png": "bee", "c.png": "ant", "d.png": "bee"}


def test_a_table_beside_its_pictures(tmp_path):
    pictures(tmp_path, *FOUR)
    assert read(table(tmp_path / "labels.csv", "file,label", *ROWS)) == {"train": CLASSES}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_marks_delimiters_and_ends_of_lines(tmp_path, mark, delimiter, end):
    pictures(tmp_path, *FOUR)
    text = mark + end.join(line.replace(",", delimiter) for line in ("file,label", *ROWS))
    (tmp_path / "labels.csv").write_bytes(text.encode())
    assert read(tmp_path / "labels.csv") == {"train": CLASSES}


@pytest.mark.parametrize(
    "spelling",
    [
        "images/{}.png",
        "./images/{}.png",
        "images\\{}.png",
        "images/{}",
        "{}.png",
        "{}",
        " {} ",
        "/kaggle/input/insects/{}.png",
        "C:\\insects\\{}.png",
    ],
)
def test_how_pictures_are_spelled(tmp_path, spelling):
    pictures(tmp_path / "images", *FOUR)
    rows = [f"{spelling.format(name[0])},{label}" for name, label in CLASSES.items()]
    found = read(table(tmp_path / "labels.csv", "id,label", *rows))
    assert found == {"train": {f"images/{name}": label for name, label in CLASSES.items()}}


@pytest.mark.parametrize(
    "start", ["{}/", "{}/../insects/", "insects/", "/other/machine/insects/", "C:\\insects\\", ""]
)
def test_paths_that_start_elsewhere_keep_their_folders(tmp_path, start):
    names = [f"{label}/{number}.png" for label in ("ant", "bee") for number in range(3)]
    folder = tmp_path / "insects"
    pictures(folder, *names)
    rows = [f"{start.format(folder)}{name},{name[:3]}" for name in names]
    found = read(table(folder / "labels.csv", "file,label", *rows))
    assert found == {"train": {name: name[:3] for name in names}}


@pytest.mark.parametrize(
    ("there", "written"),
    [
        ("train/{}", "val/{}"),
        ("train/{}", "test/images/../{}"),
        ("training/{}", "/data/val/{}"),
        ("train/bugs/{}", "/data/val/bugs/{}"),
        ("b/{}", "a/{}"),
        ("b/{}", "../b2/{}"),
    ],
)
def test_a_picture_of_another_folder_is_no_picture_of_the_table(tmp_path, there, written):
    pictures(tmp_path, *(there.format(name) for name in FOUR))
    file = table(tmp_path / "labels.csv", "file,label", *(written.format(row) for row in ROWS))
    with pytest.raises(DataError, match=r"no column .* names pictures in"):
        read(file)


def test_some_rows_of_another_folder_are_missing(tmp_path):
    pictures(tmp_path, *(f"train/{name}" for name in FOUR))
    rows = [f"{'val' if row[0] == 'd' else 'train'}/{row}" for row in ROWS]
    with pytest.raises(DataError, match=r"names 1 are not in .* \(the first is 'val/d.png'\)"):
        read(table(tmp_path / "labels.csv", "file,label", *rows))


def test_pictures_of_another_machine_are_found_by_name_and_that_is_said(tmp_path):
    pictures(tmp_path / "images", *FOUR)
    file = table(tmp_path / "labels.csv", "file,label", *(f"/kaggle/input/{row}" for row in ROWS))
    (note,) = read_label_table(file).notes
    assert "found by their names alone: 4 ('/kaggle/input/a.png' is " in note


def test_no_path_leads_out_of_the_folder(tmp_path):
    pictures(tmp_path, *FOUR)
    pictures(tmp_path / "inner", "other.png")
    file = table(tmp_path / "inner" / "labels.csv", "file,label", *(f"../{row}" for row in ROWS))
    with pytest.raises(DataError, match=r"no column .* names pictures in"):
        read(file)


def test_a_table_without_a_header(tmp_path):
    pictures(tmp_path, *FOUR)
    assert read(table(tmp_path / "list.txt", *ROWS)) == {"train": CLASSES}


@pytest.mark.parametrize("name", ["label", "Label", "class", "category", "target"])
def test_the_column_of_classes_among_others(tmp_path, name):
    pictures(tmp_path, *FOUR)
    rows = [f"{row},{i},x" for i, row in enumerate(ROWS)]
    file = table(tmp_path / "labels.csv", f"file,{name},age,site", *rows)
    assert read(file) == {"train": CLASSES}
    assert not read_label_table(file).notes


def test_a_guess_is_said(tmp_path):
    pictures(tmp_path, *FOUR)
    file = table(tmp_path / "labels.csv", "id,breed", *ROWS)
    assert read(file) == {"train": CLASSES}
    assert read_label_table(file).notes == (f"classes are those in the column 'breed' of {file}",)


def test_a_column_for_each_class(tmp_path):
    pictures(tmp_path, *FOUR)
    rows = ("a,1,0", "b,0,1", "c,1.0,0.0", "d,0,1")
    assert read(table(tmp_path / "train.csv", "id,ant,bee", *rows)) == {"train": CLASSES}


def test_numbers_are_sorted_by_value(tmp_path):
    names = [f"{i:02}.png" for i in range(22)]
    pictures(tmp_path, *names)
    file = table(tmp_path / "t.csv", "f,label", *(f"{n},{i % 11}" for i, n in enumerate(names)))
    assert read_label_table(file).classes == [str(i) for i in range(11)]


@pytest.mark.parametrize("cell", ["nan", "NaN", "NA", "null", ""])
def test_what_programs_write_for_no_label_is_no_class(tmp_path, cell):
    pictures(tmp_path, *FOUR)
    with pytest.raises(DataError, match=r"gives 'd.png' no class; fill it in"):
        read(table(tmp_path / "t.csv", "file,label", *ROWS[:3], f"d.png,{cell}"))


def test_one_order_of_classes_whatever_their_spelling():
    labels = ["1", "01", "1.0", "0", "2"] * 3
    assert {tuple(class_names(labels[i:] + labels[:i], "it")) for i in range(5)} == {
        ("0", "01", "1", "1.0", "2")
    }


def test_a_column_of_parts(tmp_path):
    pictures(tmp_path, *FOUR, "e.png", "f.png")
    parts = ("train", "Training", "train", "train", "valid", "TEST")
    rows = [f"{r},{p}" for r, p in zip((*ROWS, "e.png,ant", "f.png,bee"), parts, strict=True)]
    assert read(table(tmp_path / "all.csv", "file,label,split", *rows)) == {
        "train": CLASSES,
        "val": {"e.png": "ant"},
        "test": {"f.png": "bee"},
    }


def test_tables_of_parts_with_pictures_of_the_same_names(tmp_path):
    for part in ("train", "valid", "test"):
        pictures(tmp_path / part, *FOUR)
    for part in ("train", "valid"):
        file = table(
            tmp_path / f"{part}.csv", "id,label", *(row.replace(".png", "") for row in ROWS)
        )
    table(tmp_path / "test.csv", "id", "a", "b")
    assert read(tmp_path / "train.csv") == {
        part: {f"{folder}/{name}": label for name, label in CLASSES.items()}
        for part, folder in (("train", "train"), ("test", "valid"))
    }
    notes = read_label_table(file).notes
    assert f"{tmp_path / 'test.csv'} has no classes and is left out" in notes


def test_a_table_in_the_folder_of_each_part(tmp_path):
    for part in ("train", "test"):
        pictures(tmp_path / part, *FOUR)
        file = table(tmp_path / part / "metadata.csv", "file_name,label", *ROWS)
    assert read(file, tmp_path) == {
        part: {f"{part}/{name}": label for name, label in CLASSES.items()}
        for part in ("train", "test")
    }


def test_the_order_of_rows_is_of_no_account(tmp_path):
    pictures(tmp_path, *FOUR)
    one = read_label_table(table(tmp_path / "x.csv", "file,label", *ROWS))
    other = read_label_table(table(tmp_path / "y.csv", "file,label", *reversed(ROWS)))
    assert [one.train.path(i) for i in range(4)] == [other.train.path(i) for i in range(4)]
    assert one.train.labels.tolist() == other.train.labels.tolist()


def test_what_is_left_out_is_said(tmp_path):
    pictures(tmp_path, *FOUR, "x.png", "y.png")
    notes = read_label_table(table(tmp_path / "t.csv", "file,label", *ROWS, ROWS[0])).notes
    assert notes == (
        f"rows of {tmp_path / 't.csv'} that name a picture once more are left out: 1",
        f"pictures in {tmp_path} without a class are left out: 2",
    )


HEAD = "file,label"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "has no row with a picture"),
        ((HEAD,), "has no row with a picture"),
        ((HEAD, *ROWS, "e.png,ant"), "1 are not in .* 'e.png'"),
        ((HEAD, *ROWS, "a.png,bee"), "gives 'a.png' two classes"),
        ((HEAD, *ROWS[:3], "d.png,"), "gives 'd.png' no class"),
        ((HEAD, *ROWS[:3], "d.png,bee,x"), "line 5 of .* has 3 cells where the first has 2"),
        ((HEAD, *ROWS[:3], 'd.png,"bee'), "line 5: unexpected end of data"),
        (("label,label", *ROWS), "two columns of .* are called 'label'"),
        (("file", *FOUR), "nothing else"),
        ((HEAD, *(f"{n},ant" for n in FOUR)), "have one class"),
        ((HEAD, *(f"{n},{i / 7}" for i, n in enumerate(FOUR))), "are no classes"),
        ((HEAD, "a.png,ant", "b.png,bee", "c.png,ant bee", "d.png,bee"), "several classes"),
        ((HEAD, "a.png,ant|bee", "b.png,bee", "c.png,ant|bee", "d.png,bee"), "several classes"),
        (("file,ant,bee", "a.png,1,1", "b.png,0,1"), "several classes or none"),
        (("file,age,site", "a.png,31,x", "b.png,27,y"), "not clear .'age', 'site'.; call it"),
        (("file,label", "no.jpg,ant", "none.jpg,bee"), "no column .* names pictures"),
    ],
)
def test_what_is_not_understood(tmp_path, lines, message):
    pictures(tmp_path, *FOUR)
    with pytest.raises(DataError, match=message):
        read(table(tmp_path / "t.csv", *lines))


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".JSONL"])
def test_objects_on_lines(tmp_path, ending):
    pictures(tmp_path, *FOUR)
    rows = [{"file_name": name, "label": label} for name, label in CLASSES.items()]
    rows[0] |= {"boxes": [[1, 2, 3, 4]], "place": {"x": 1}}
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    file = table(tmp_path / f"metadata{ending}", "", *lines)
    assert read(file)["train"] == CLASSES


def test_numbers_and_truths_in_objects(tmp_path):
    pictures(tmp_path, *FOUR)
    rows = [{"id": name.removesuffix(".png"), "cat": name < "c"} for name in FOUR]
    file = table(tmp_path / "t.jsonl", *(json.dumps(row) for row in rows))
    assert read(file)["train"] == {name: str(int(name < "c")) for name in FOUR}


def test_objects_in_the_folder_of_each_part(tmp_path):
    for part, names in (("train", FOUR), ("test", FOUR[:2])):
        pictures(tmp_path / part, *names)
        rows = (json.dumps({"file_name": name, "label": CLASSES[name]}) for name in names)
        table(tmp_path / part / "metadata.jsonl", *rows)
    parts = read(tmp_path / "train" / "metadata.jsonl", tmp_path)
    assert [len(parts[part]) for part in ("train", "test")] == [4, 2]


OBJECTS = [json.dumps({"file": name, "label": label}) for name, label in CLASSES.items()]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "has no row with a picture"),
        (("{}",), "has no row with a picture"),
        ((*OBJECTS, "{"), "cannot read .* .line 5: "),
        ((*OBJECTS, "[" * 100_000), "cannot read .* .line 5: "),
        ((*OBJECTS, "3"), "line 5 of .* is no object"),
        ((*OBJECTS[:3], '{"file": "d.png"}'), "gives 'd.png' no class"),
        ((*OBJECTS[:3], '{"file": "d.png", "label": null}'), "gives 'd.png' no class"),
        ((*OBJECTS[:3], '{"file": "d.png", "label": NaN}'), "gives 'd.png' no class"),
        ((*OBJECTS[:3], '{"file": "d.png", "label": ["a", "b"]}'), "names pictures and nothing"),
        ((*OBJECTS, r'{"file": "\ud800.png", "label": "ant"}'), "are not in .* '.\\.png'"),
    ],
)
def test_objects_that_are_not_understood(tmp_path, lines, message):
    pictures(tmp_path, *FOUR)
    with pytest.raises(DataError, match=message):
        read(table(tmp_path / "t.jsonl", *lines))


def test_one_name_of_two_pictures(tmp_path):
    pictures(tmp_path, *FOUR, "more/a.png", "less/a.png", "less/b.png")
    rows = [row.replace(".png", "") for row in ROWS]
    assert read(table(tmp_path / "t.csv", HEAD, *rows))["train"] == CLASSES  # paths come first
    for name in FOUR:
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match=r"several pictures in .* are called 'a'"):
        read(table(tmp_path / "t.csv", HEAD, *rows))


def test_a_class_that_is_not_trained(tmp_path):
    pictures(tmp_path, *FOUR)
    table(tmp_path / "train.csv", HEAD, *ROWS)
    file = table(tmp_path / "val.csv", HEAD, "a.png,wasp")
    with pytest.raises(DataError, match="class 'wasp', which the training rows lack"):
        read(file)


def test_what_is_no_table(tmp_path):
    with pytest.raises(DataError, match="there is none"):
        read_label_table(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfea\x00")
    with pytest.raises(DataError, match="save it as UTF-8"):
        read_label_table(tmp_path / "t.csv")
    with pytest.raises(DataError, match="no regular file"):
        read_label_table(tmp_path)


def test_a_run_of_it_is_that_of_class_folders(tmp_path):
    for name, label in CLASSES.items():
        pictures(tmp_path / "folders" / label, name)
        pictures(tmp_path / "table", name)
    rows = [f"{name},{label}" for name, label in CLASSES.items()]
    table(tmp_path / "table" / "t.csv", HEAD, *rows)
    options = {"val_fraction": 0.0}
    one = load(f"folder:{tmp_path / 'folders'}", **options)
    other = load(f"csv:{tmp_path / 'table' / 't.csv'}", **options)
    assert one.classes == other.classes
    by_name = [0, 2, 1, 3]  # the folders' pictures in the order of the table's
    assert one.train.labels.tolist() == other.train.labels[by_name].tolist()
    assert (one.train.images == other.train.images[by_name]).all()


@given(st.binary(max_size=200), st.sampled_from([".csv", ".jsonl"]))
def test_bytes_of_any_kind_end_in_a_sentence(tmp_path_factory, content, ending):
    file = tmp_path_factory.mktemp("t") / f"t{ending}"
    file.write_bytes(content)
    with suppress(DataError):
        columns = read_columns(file)
        assert len({len(cells) for cells in columns.values()}) == 1


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=12))
def test_names_of_classes_end_in_a_sentence(labels):
    with suppress(DataError):
        assert set(class_names(labels, "it")) == set(labels) - {""}


@pytest.mark.parametrize(
    ("name", "cells", "message"),
    [
        ("split", ("train", "train", "holdout", "val"), "'split' of .* has 'holdout', which is"),
        ("Split", ("train", "train", "", "val"), "'Split' of .* has ''"),
        ("split", ("0", "1", "2", "0"), "'split' of .* has '0'"),
        ("subset", ("train", "train", "extra", "test"), "'subset' of .* has 'extra'"),
    ],
)
def test_a_column_of_parts_is_understood_whole_or_refused(tmp_path, name, cells, message):
    pictures(tmp_path, *FOUR)
    lines = [f"{row},{cell}" for row, cell in zip(ROWS, cells, strict=True)]
    with pytest.raises(DataError, match=message):
        read(table(tmp_path / "labels.csv", f"file,label,{name}", *lines))


def test_a_column_set_may_be_about_something_else(tmp_path):
    pictures(tmp_path, *FOUR)
    lines = [f"{row},{cell}" for row, cell in zip(ROWS, "AABB", strict=True)]
    assert read(table(tmp_path / "labels.csv", "file,label,set", *lines)) == {"train": CLASSES}


def test_rows_of_a_part_without_classes_are_left_out(tmp_path):
    pictures(tmp_path, *FOUR, "e.png", "f.png")
    lines = [f"{row},train" for row in ROWS] + ["e.png,,test", "f.png,,test"]
    file = table(tmp_path / "labels.csv", "file,label,split", *lines)
    assert read(file) == {"train": CLASSES}
    notes = read_label_table(file).notes
    assert any("the test part of" in n and "has no classes and is left out" in n for n in notes)
    table(file, "file,label,split", *lines[:-1], "f.png,ant,test")
    with pytest.raises(DataError, match=r"gives 'e\.png' no class"):
        read(file)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train_labels.csv", "val_labels.csv"),
        ("labels-train.csv", "labels-valid.csv"),
        ("train_labels.csv", "validation_labels.jsonl"),
        ("train.csv", "val.tsv"),
        ("Train.csv", "test_set.csv"),
    ],
)
def test_tables_whose_names_hold_their_parts(tmp_path, train, val):
    pictures(tmp_path, *FOUR, "e.png", "f.png")
    file = table(tmp_path / train, "file,label", *ROWS)
    if val.endswith("l"):
        rows = [dict(zip(("file", "label"), row.split(","), strict=True)) for row in LATER]
        table(tmp_path / val, *map(json.dumps, rows))
    else:
        mark = "\t" if val.endswith("tsv") else ","
        table(tmp_path / val, *(r.replace(",", mark) for r in ("file,label", *LATER)))
    parts = read(file)
    assert parts["train"] == CLASSES
    assert list(parts.values())[1:] == [{"e.png": "ant", "f.png": "bee"}]


def test_tables_of_the_same_part_and_form_are_refused(tmp_path):
    pictures(tmp_path, *FOUR)
    file = table(tmp_path / "train_labels.csv", "file,label", *ROWS)
    table(tmp_path / "training_labels.csv", "file,label", *ROWS)
    with pytest.raises(DataError, match="both hold the train part"):
        read(file)


def test_one_number_in_two_spellings_is_said(tmp_path):
    pictures(tmp_path, *FOUR)
    rows = ("a.png,0", "b.png,1", "c.png,0.0", "d.png,1.0")
    file = table(tmp_path / "labels.csv", "file,label", *rows, *rows)
    data = load(f"csv:{file}", val_fraction=0.0)
    assert data.classes == ["0", "0.0", "1", "1.0"]
    assert any("'0' and '0.0' differ in their spelling alone" in note for note in data.notes)
