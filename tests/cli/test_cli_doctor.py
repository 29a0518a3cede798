"""`selfdistill doctor`: the options of `train`, the findings on the screen, the exit codes."""

import inspect
import re
from pathlib import Path

import pytest
from command import TINY, pictures, say

from selfdistill.cli.doctor import _time, doctor
from selfdistill.cli.train import train


def test_it_takes_the_options_of_train():
    mine, theirs = (inspect.signature(f).parameters for f in (doctor, train))
    assert list(mine) == [name for name in theirs if name != "resume"]
    assert all(mine[name] == theirs[name] for name in mine)


def test_a_run_that_can_start(tmp_path):
    said = say("doctor", *TINY, "--model", "cifar/resnet8")
    assert said.code == 0
    titles = ["data: digits", "network: cifar/resnet8", "first step: 32 images", "time and memory"]
    places = [said.out.index(title) for title in titles]
    assert places == sorted(places)
    for words in ("64 train, 144 val, 360 test; 1×8×8", "added by the method", "critics", "exit3"):
        assert words in said.out
    assert re.search(r"^mutual/1 +0\.1\d+ +\d\.\d % ", said.out, re.M)
    assert "training warns if it lasts: mutual/1" in said.out
    assert re.search(r"the run +about .*: 1 epoch, and judging", said.out)
    assert said.out.endswith("The run can start.\n")
    assert not list(Path().iterdir())


def test_warnings_and_a_teacher(first, tmp_path):
    pictures(tmp_path / "some", classes=["cat"], each=50, side=8)
    pictures(tmp_path / "some", classes=["dog"], each=3, side=8)
    words = (
        "--batch-size",
        8,
        "--method",
        "ce",
        "--model",
        "cifar/resnet8",
        "--val-fraction",
        "0.1",
    )
    said = say("doctor", "--data", "folder:some", *words)
    assert said.code == 0
    assert re.search(r"^! class 'cat' has 45 training images and 'dog' \d:", said.out, re.M)
    assert re.search(r"The run can start, with \d warnings\.\n$", said.out)
    said = say("doctor", *TINY, "--method", "kd", "--teacher", first[1], "--model", "cifar/resnet8")
    assert f"teacher: {first[1]}" in said.out
    assert "the data's, by its run's data.json" in said.out


@pytest.mark.parametrize(
    ("words", "code", "shown"),
    [
        (["--data", "digts"], 4, ""),
        (["--method", "kd"], 2, "data: digits"),
        (["--lr", "1e30", "--method", "ce"], 5, "first step"),
        (["--set", "foo=1"], 2, ""),
        (["--resume", "runs/x"], 2, ""),
    ],
)
def test_a_run_that_cannot(words, code, shown):
    said = say("doctor", *TINY, "--model", "cifar/resnet8", *words)
    assert said.code == code
    assert shown in said.out
    assert "Traceback" not in said.err
    assert "can start" not in said.out


def test_a_place_that_is_taken(first):
    said = say("doctor", *TINY, "--out", first[1])
    assert said.code == 3
    assert "holds a run already" in said.err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0123, "0.012 s"), (4.26, "4.3 s"), (48.4, "48 s"), (720, "12 min"), (27000, "7 h 30 min")],
)
def test_times(seconds, words):
    assert _time(seconds) == words
