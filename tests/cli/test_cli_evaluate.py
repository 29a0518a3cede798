"""`selfdistill evaluate`: the same figures again, other data, and broken checkpoints."""

import hashlib
import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
from command import pictures, say


def figures(said):
    return [re.findall(r"[\d.]+ %", row) for row in re.findall(r"^(?:exit|student).*%", said, re.M)]


def test_gives_the_figures_of_the_run(first):
    trained, place = first
    test, val = (figures(say("evaluate", place, "--split", s).out) for s in ("test", "val"))
    want = figures(trained.out)
    assert [[v[0], t[0]] for v, t in zip(val, test, strict=True)] == [row[:2] for row in want]
    assert say("evaluate", place).out == say("evaluate", place, "--split", "test").out


def test_other_data_of_the_same_kind(run):
    said = say("evaluate", run, "--data", "digits", "--split", "val")
    assert said.code == 0
    assert "digits · val · 144 images" in said.out


def test_data_that_do_not_fit(run, tmp_path):
    pictures(tmp_path / "other", classes="ab", each=10, side=8)
    said = say("evaluate", run, "--data", f"folder:{tmp_path / 'other'}")
    assert said.code == 4
    assert "tells 10 classes apart and" in said.err
    assert "Traceback" not in said.err


def test_color_for_a_network_of_gray(run, tmp_path):
    pictures(tmp_path / "other", classes="abcdefghij", each=10, side=8)
    said = say("evaluate", run, "--data", f"folder:{tmp_path / 'other'}", "--split", "val")
    assert said.code == 0
    assert "images · color converted to gray" in said.out


@pytest.mark.parametrize("words", [["--split", "train"], ["--device", "gpu"]])
def test_wrong_words(run, words):
    said = say("evaluate", run, *words)
    assert said.err.startswith("error: ")
    assert said.code == 2


def test_no_run(tmp_path):
    assert say("evaluate", tmp_path).code == 2


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))


@pytest.mark.filterwarnings("default")
def test_a_corrupt_checkpoint_falls_back_to_the_one_before(run):
    file = newest(run) / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    said = say("evaluate", run)
    assert said.code == 0
    assert said.err.startswith("warning: ")
    assert "checksum does not match; step-000001 is used instead" in said.err
    assert len(said.err.splitlines()) == 1


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_a_pickle_is_refused_unread(run):
    for place in (run / "checkpoints").glob("step-*"):
        if place != newest(run):
            shutil.rmtree(place)
    file, manifest = newest(run) / "model.safetensors", newest(run) / "manifest.json"
    file.write_bytes(pickle.dumps(Bomb()))
    sums = json.loads(manifest.read_text())
    sums[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(sums))
    said = say("evaluate", run)
    assert said.code == 6
    assert "is a pickle" in said.err
    assert not Path("exploded").exists()
