"""`selfdistill doctor`: the options of `train`, the report, the exit codes."""

import inspect
import re
import typing
from pathlib import Path

import pytest
from command import TINY, pictures, say

from selfdistill.cli.doctor import doctor
from selfdistill.cli.doctor_output import _format_time
from selfdistill.cli.train import train


def described(parameter):
    """Type, default, names, help and limits of an option."""
    kind, option = typing.get_args(parameter.annotation)
    return kind, parameter.default, vars(option)


def test_it_takes_the_options_of_train():
    doctor_options, train_options = (inspect.signature(f).parameters for f in (doctor, train))
    shared = [name for name in doctor_options if name != "will_it_help"]
    assert shared == [name for name in train_options if name != "resume"]
    assert all(described(doctor_options[name]) == described(train_options[name]) for name in shared)


def test_a_run_that_can_start(tmp_path):
    result = say("doctor", *TINY, "--model", "cifar/resnet8")
    assert result.code == 0
    titles = ["data: digits", "network: cifar/resnet8", "first step: 32 images", "time and memory"]
    places = [result.out.index(title) for title in titles]
    assert places == sorted(places)
    for arguments in (
        "64 train, 144 val, 360 test; 1×8×8",
        "added by the method",
        "critics",
        "exit3",
    ):
        assert arguments in result.out
    assert re.search(r"^mutual/1 +1\.\d+ +\d\.\d % ", result.out, re.M)
    assert "training warns if it lasts: mutual/1" in result.out
    assert re.search(r"the run +about .*: 1 epoch, and the final evaluation", result.out)
    assert result.out.endswith("The run can start.\n")
    assert not list(Path().iterdir())


def test_warnings_and_a_teacher(first, tmp_path):
    pictures(tmp_path / "some", classes=["cat"], each=50, side=8)
    pictures(tmp_path / "some", classes=["dog"], each=3, side=8)
    arguments = (
        "--batch-size",
        8,
        "--method",
        "ce",
        "--model",
        "cifar/resnet8",
        "--val-fraction",
        "0.1",
    )
    result = say("doctor", "--data", "folder:some", *arguments)
    assert result.code == 0
    assert re.search(r"^! class 'cat' has 45 training images and 'dog' \d:", result.out, re.M)
    assert re.search(r"The run can start, with \d warnings\.\n$", result.out)
    result = say(
        "doctor", *TINY, "--method", "kd", "--teacher", first[1], "--model", "cifar/resnet8"
    )
    assert f"teacher: {first[1]}" in result.out
    assert "the data's, by its run's data.json" in result.out


@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        (["--data", "digts"], 4, ""),
        (["--method", "kd"], 2, "data: digits"),
        (["--lr", "1e30", "--method", "ce"], 5, "first step"),
        (["--set", "foo=1"], 2, ""),
        (["--resume", "runs/x"], 2, ""),
    ],
)
def test_a_run_that_cannot(arguments, code, shown):
    result = say("doctor", *TINY, "--model", "cifar/resnet8", *arguments)
    assert result.code == code
    assert shown in result.out
    assert "Traceback" not in result.err
    assert "can start" not in result.out


def test_a_run_directory_that_is_taken(first):
    result = say("doctor", *TINY, "--out", first[1])
    assert result.code == 3
    assert "holds a run already" in result.err


SMALL = (
    "--max-train-images",
    64,
    "--batch-size",
    32,
    "--device",
    "cpu",
    "--model",
    "cifar/resnet8",
)


def test_whether_it_will_help(pretend):
    rows = "muse:information_weight=0.3,byot"
    result = say(
        "doctor", *SMALL, "--epochs", 8, "--will-it-help", rows, "--set", "soft_weight=0.2"
    )
    assert (result.code, result.err) == (0, "")
    assert "9 short runs of 2 epochs; " in result.out
    said = result.out.partition("9 of 9")[2]
    for row in ("muse-information_weight-0.3", "byot"):
        sentence = (
            rf"^{row} helps: expected \+[45]\.\d\d points over ce after 8 epochs \(\+.* … .*\)\.$"
        )
        assert re.search(sentence, said, re.M)
    assert "the highest is optimistic" in said
    command = (
        "selfdistill compare --methods muse:information_weight=0.3,byot --seeds 0-4 "
        "--max-train-images 64 --batch-size 32 --device cpu --model cifar/resnet8 --epochs 8 "
        "--set soft_weight=0.2"
    )
    assert sorted(said.splitlines()[-1].split()) == sorted(command.split())
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("asked", [("--will-it-help", "auto"), ("--will-it-help",)])
@pytest.mark.parametrize("last", [True, False])
def test_a_short_run_that_fails(pretend, asked, last):
    pretend(muse_s1="diverge")
    arguments = (*asked, "--method", "muse", "--epochs", 4)
    arguments = arguments[len(asked) :] + asked if last else arguments
    result = say("doctor", *SMALL, *arguments)
    assert result.code == 5
    assert re.search("^cannot tell whether muse helps: .* of 2 seeds only.$", result.out, re.M)
    assert "error: muse seed 1 failed: the loss is no longer finite" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--will-it-help", "mus"], 2, "did you mean 'muse'"),
        (["--will-it-help", "muse,"], 2, "has an empty row"),
        (["--will-it-help", ""], 2, "has an empty row"),
        (["--will-it-help", "x y=muse"], 2, "is no name for a row"),
        (["--will-it-help", "muse:lr=1"], 2, "belongs to the recipe that all rows share"),
        (["--will-it-help", "--method", "ce"], 2, "plain training is what others"),
        (["--will-it-help", "auto", "--method", "ce"], 2, "plain training is what others"),
        (["--will-it-help", "muse", "--epochs", 3], 2, "give --epochs 4 or more"),
        (["--will-it-help", "muse", "--val-fraction", 0], 4, "give --val-fraction 0.1"),
    ],
)
def test_short_runs_that_are_refused(arguments, code, sentence):
    result = say("doctor", *SMALL, *arguments)
    assert result.code == code
    assert result.err.startswith("error: ")
    assert sentence in result.err
    assert "Traceback" not in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "arguments"),
    [(0.0123, "0.012 s"), (4.26, "4.3 s"), (48.4, "48 s"), (720, "12 min"), (27000, "7 h 30 min")],
)
def test_times(seconds, arguments):
    assert _format_time(seconds) == arguments


def test_a_method_without_labels_is_examined(tmp_path):
    folder, teacher = pictures(tmp_path / "set", each=12), str(tmp_path / "teacher")
    common = ("--data", f"folder:{folder}", "--model", "cifar/resnet8", "--batch-size", "8")
    common = (*common, "--epochs", "1", "--device", "cpu")
    assert say("train", *common, "--method", "ce", "--out", teacher).code == 0
    result = say("doctor", *common, "--method", "feature-kd", "--teacher", teacher)
    assert result.code == 0, result.err
    assert "first step: 8 images" in result.out
    assert "training images" not in result.out
