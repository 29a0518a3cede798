"""`selfdistill train` from its first line to its last."""

import os
import re
import signal
import subprocess
import sys

import pytest
from command import TINY, say

from selfdistill.evaluation import EvaluationSession
from selfdistill.runs import finalize
from selfdistill.runs.progress import TerminalProgress


def test_tells_the_run_from_beginning_to_end(first):
    said, place = first
    assert (said.code, said.err) == (0, "")
    for words in ("muse", "cifar/resnet10_w16, 308,538 parameters", "64 train, 144 val, 360 test"):
        assert words in said.out
    assert "cpu, fp32" in said.out
    assert re.search(r"epoch 1/1  loss [\d.]+  task [\d.]+ .*val +[\d.]+ %", said.out)
    assert re.search(r"student +[\d.]+ % +[\d.]+ % +309 k +994 k +100 %", said.out)
    assert "Best trade-off: " in said.out
    assert f"selfdistill evaluate {place}" in said.out


def test_says_why_a_method_is_taken_that_nobody_named(first, monkeypatch):
    command = sys.modules["selfdistill.cli.train"]  # the package's `train` is the function
    monkeypatch.setattr(command, "train_and_report", lambda *args, **keys: None)
    assert "No method is named, so it is frskd: on 4,000 images" in say("train").out
    assert "so it is ce: plain training" in say("train", "--task", "detection").out
    for words in (("--method", "muse"), ("--set", "method=muse")):
        assert "No method is named" not in say("train", *words).out


def test_writes_what_it_says(first):
    said, place = first
    written = said.out.partition("Written:")[2].partition("Next:")[0].split()
    assert written[0] == str(place / "report.html")
    assert all(os.path.exists(name) for name in written)


def test_terms_are_summed_by_kind(capsys):
    losses = {"task": 1.0, "soft/1": 0.25, "soft/2": 0.5}
    with TerminalProgress(10) as callback:
        callback.on_epoch({"epoch": 0, "losses": losses, "val": {"student": {"accuracy": 0.5}}})
    assert capsys.readouterr().out == (
        "epoch  1/10  loss 1.750  task 1.000  soft 0.750  val  50.0 %\n"
    )


def test_an_epoch_without_validation(capsys):
    TerminalProgress(2).on_epoch({"epoch": 1, "losses": {"task": 1.0}})
    assert capsys.readouterr().out == "epoch 2/2  loss 1.000\n"


def test_ranks_but_the_first_are_silent(monkeypatch, tmp_path):
    monkeypatch.setattr("selfdistill.runs.train.train_recipe", lambda *args, **keys: None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert say("train", "--out", tmp_path / "x") == (0, "", "")


def test_an_existing_run_is_left_alone(run):
    said = say("train", "--out", run)
    assert said.code == 3
    assert "holds a run already" in said.err
    assert "Traceback" not in said.err


def test_a_finished_run_can_be_resumed(run):
    said = say("train", "--resume", run)
    assert (said.code, said.err) == (0, "")
    assert "going on from step 2 of 2" in said.out
    assert "student" in said.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on(monkeypatch, tmp_path, number):
    def kill(self, step, total):
        if step == 1:
            os.kill(os.getpid(), number)

    place = tmp_path / "my run"
    with monkeypatch.context() as patch:
        patch.setattr(TerminalProgress, "on_step", kill)
        said = say("train", *TINY, "--method", "ce", "--out", place)
    assert said.code == 128 + number
    assert f"selfdistill train --resume '{place}'" in said.out
    assert say("evaluate", place).code == 0
    assert say("train", "--resume", place).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("part", ["session.evaluate_full", "_write_details", "_write_report"])
def test_a_signal_after_the_last_epoch_says_that_all_is_saved(monkeypatch, tmp_path, number, part):
    def kill(*args):
        os.kill(os.getpid(), number)

    place = tmp_path / "run"
    target = EvaluationSession if "." in part else finalize
    with monkeypatch.context() as patch:
        patch.setattr(target, part.rpartition(".")[2], kill)
        said = say("train", *TINY, "--method", "ce", "--out", place)
    assert said.code == 128 + number
    assert f"selfdistill train --resume {place}" in said.out
    assert "Traceback" not in said.err
    assert say("train", "--resume", place).code == 0
    assert (place / "report.html").exists()


@pytest.mark.parametrize("command", [("train", *TINY), ("evaluate", "run")])
def test_a_signal_before_training_or_elsewhere_is_a_sentence(monkeypatch, run, command):
    def kill(*args, **keys):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("selfdistill.recipe.build_run.load", kill)
    said = say(*command)
    assert (said.code, said.err) == (143, "error: stopped by SIGTERM\n")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    "command",
    [("train", "--out", "--epochs"), ("evaluate", "--", "--x"), ("export", "run", "--out", "-x")],
)
def test_a_path_like_an_option_is_refused(run, command):
    said = say(*command)
    assert said.code == 2
    assert f"the path {command[-1]} looks like an option" in said.err
    assert not list(run.parent.glob("-*"))


@pytest.mark.slow
def test_two_processes_speak_with_one_voice(tmp_path):
    command = [sys.executable, "-m", "selfdistill", "train", *TINY, "--devices", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("epoch 1/1") == done.stdout.count("Written:") == 1
