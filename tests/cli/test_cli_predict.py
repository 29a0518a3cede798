"""`selfdistill predict`: what is printed, in each form, and the exit codes."""

import csv
import io
import json

import numpy as np
import pytest
from command import say
from PIL import Image

from selfdistill.data import load


@pytest.fixture
def digits(tmp_path):
    """A folder with the first test images of the run's data."""
    folder = tmp_path / "digits"
    (folder / "more").mkdir(parents=True)
    for i, image in enumerate(load("digits").test.images[:4]):
        place = folder / "more" if i == 3 else folder
        Image.fromarray(image[0].numpy()).save(place / f"{i}.png")
    return folder


def test_a_table(first, digits):
    said = say("predict", first[1], digits, "--top", 2)
    assert (said.code, said.err) == (0, "")
    header, *lines = said.out.splitlines()
    assert header.split() == ["picture", "class", "confidence", "then"]
    assert [line.split()[0] for line in lines] == [
        *(f"{digits}/{i}.png" for i in range(3)), f"{digits}/more/3.png",
    ]  # fmt: skip


def test_json_and_csv_say_the_same(first, digits):
    document = json.loads(say("predict", first[1], digits, "--format", "json").out)
    table = say("predict", first[1], digits, "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(p["picture"], r["class"]) for p in document["pictures"] for r in p["classes"]] == [
        (row["picture"], row["class"]) for row in rows
    ]
    assert len(rows) == 4 * 5
    assert document["predictor"] == "student"
    assert document["classes"] == [str(k) for k in range(10)]


def test_the_exit_and_the_folder(first, digits, tmp_path):
    done = say("predict", first[1], digits / "0.png", "--exit", 1, "--save", tmp_path / "made")
    assert (done.code, done.err) == (0, "")
    assert f"Written: {tmp_path / 'made'}/" in done.out
    assert (tmp_path / "made" / "predictions.csv").exists()
    again = say("predict", first[1], digits / "0.png", "--save", tmp_path / "made")
    assert again.code == 3
    assert "exists already" in again.err


def test_broken_pictures_are_named_and_the_rest_predicted(first, digits):
    (digits / "broken.png").write_bytes(b"no picture")
    done = say("predict", first[1], digits, "--format", "json")
    assert done.code == 4
    (warning,) = done.err.splitlines()
    assert warning.startswith("warning: cannot read the image")
    assert len(json.loads(done.out)["pictures"]) == 4


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        (["{run}", "gone.png"], "there is no picture and no folder gone.png", 4),
        (["{run}", "empty"], "there is no picture in empty", 4),
        (["gone", "x.png"], "there is no run and no exported network gone", 2),
        (["empty", "x.png"], "holds no run", 2),
        (["{run}", "x.png", "--exit", "9"], "there is no exit '9'", 2),
        (["{run}", "x.png", "--format", "jsn"], "did you mean 'json'", 2),
        (["{run}", "x.png", "--device", "cdua"], "cdua", 2),
    ],
)
def test_wrong_words(first, tmp_path, words, sentence, code):
    (tmp_path / "empty").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "x.png")
    done = say("predict", *(word.format(run=first[1]) for word in words))
    (error,) = done.err.splitlines()
    assert error.startswith("error: ")
    assert sentence in error
    assert done.code == code
