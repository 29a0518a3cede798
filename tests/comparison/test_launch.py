"""How many runs at a time, on which cores and GPUs; and that no run outlives its study."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from selfdistill.comparison import launch
from selfdistill.comparison.jobs import RunJob
from selfdistill.comparison.launch import Machine, share_out
from selfdistill.recipe.schema import parse


def machine(monkeypatch, *, cores=8, gpus=(), **asked) -> Machine:
    monkeypatch.setattr(launch, "cores", lambda: cores)
    monkeypatch.setattr(launch, "_gpus", lambda: list(gpus))
    recipe = {k: asked.pop(k) for k in ("device", "devices") if k in asked}
    return share_out(parse(recipe), asked.pop("runs", 100), **asked)


@pytest.mark.parametrize(
    ("asked", "want"),
    [
        ({}, Machine(8, 1)),
        ({"runs": 3}, Machine(3, 2)),
        ({"runs": 0}, Machine(1, 8)),
        ({"jobs": 2}, Machine(2, 4)),
        ({"jobs": 20}, Machine(20, 1)),
        ({"jobs": 2, "threads": 1}, Machine(2, 1)),
        ({"devices": 2}, Machine(4, 1)),
        ({"device": "mps"}, Machine(1, 8)),
        # one GPU is seen by all, without being told
        ({"gpus": "0"}, Machine(1, 8)),
        ({"gpus": "0", "jobs": 2}, Machine(2, 4)),
        ({"gpus": "0123"}, Machine(4, 2, ("0", "1", "2", "3"))),
        ({"gpus": "0123", "device": "cpu"}, Machine(8, 1)),
        ({"gpus": "35", "jobs": 3}, Machine(3, 2, ("3", "5", "3"))),
        ({"gpus": "01234", "devices": 2}, Machine(2, 2, ("0,1", "2,3"))),
        ({"gpus": "01", "devices": 4}, Machine(1, 2)),
    ],
)
def test_shares(monkeypatch, asked, want):
    assert machine(monkeypatch, **asked) == want


def test_gpus_are_those_that_this_process_sees(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert launch._gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    assert launch._gpus() == ["4", "GPU-7"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert launch._gpus() == []


def test_the_environment_of_a_run():
    env = Machine(2, 3, ("0", "1")).env(1)
    assert env == {
        "OMP_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    assert "CUDA_VISIBLE_DEVICES" not in Machine(2, 3).env(0)


def test_a_run_is_begun_or_gone_on_with(tmp_path):
    order = RunJob("muse", 3, Path("muse.toml"), tmp_path)
    assert order.words() == [
        *("train", "--recipe", "muse.toml", "--seed", "3", "--out", str(tmp_path))
    ]
    (tmp_path / "recipe.toml").touch()
    assert order.words() == ["train", "--resume", str(tmp_path)]


def test_the_words_are_the_commands():
    """The child process is the command, and ends when its stdin does."""
    words = [sys.executable, "-m", "selfdistill.comparison.child_process", "--version"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.read().startswith(b"selfdistill ")
        assert process.wait() == 0


def test_a_run_ends_with_its_parent():
    wait = "import time, selfdistill.cli as c; c.main = lambda: (print('up', flush=True), time.sleep(60))"  # noqa: E501
    module = "selfdistill.comparison.child_process"
    code = f"{wait}\nimport runpy; runpy.run_module('{module}', run_name='__main__')"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(2) == b"up"
        process.stdin.close()
        assert process.wait(timeout=30) == -signal.SIGTERM


def test_cores():
    assert 1 <= launch.cores() <= os.cpu_count()
