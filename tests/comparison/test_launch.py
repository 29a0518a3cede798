"""How many runs at a time, on which cores and GPUs; and that no run outlives its study."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from selfdistill.comparison import launch
from selfdistill.comparison.jobs import RunJob
from selfdistill.comparison.launch import ResourceShares, share_resources
from selfdistill.recipe.schema import parse


def shares(monkeypatch, *, cores=8, gpus=(), **given) -> ResourceShares:
    monkeypatch.setattr(launch, "num_cores", lambda: cores)
    monkeypatch.setattr(launch, "_visible_gpus", lambda: list(gpus))
    recipe = {k: given.pop(k) for k in ("device", "devices") if k in given}
    return share_resources(parse(recipe), given.pop("runs", 100), **given)


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({}, ResourceShares(8, 1)),
        ({"runs": 3}, ResourceShares(3, 2)),
        ({"runs": 0}, ResourceShares(1, 8)),
        ({"jobs": 2}, ResourceShares(2, 4)),
        ({"jobs": 20}, ResourceShares(20, 1)),
        ({"jobs": 2, "threads": 1}, ResourceShares(2, 1)),
        ({"devices": 2}, ResourceShares(4, 1)),
        ({"device": "mps"}, ResourceShares(1, 8)),
        # one GPU is seen by all, without being told
        ({"gpus": "0"}, ResourceShares(1, 8)),
        ({"gpus": "0", "jobs": 2}, ResourceShares(2, 4)),
        ({"gpus": "0123"}, ResourceShares(4, 2, ("0", "1", "2", "3"))),
        ({"gpus": "0123", "device": "cpu"}, ResourceShares(8, 1)),
        ({"gpus": "35", "jobs": 3}, ResourceShares(3, 2, ("3", "5", "3"))),
        ({"gpus": "01234", "devices": 2}, ResourceShares(2, 2, ("0,1", "2,3"))),
        ({"gpus": "01", "devices": 4}, ResourceShares(1, 2)),
    ],
)
def test_shares(monkeypatch, given, want):
    assert shares(monkeypatch, **given) == want


def test_gpus_are_those_that_this_process_sees(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert launch._visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    assert launch._visible_gpus() == ["4", "GPU-7"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert launch._visible_gpus() == []


def test_the_environment_of_a_run():
    env = ResourceShares(2, 3, ("0", "1")).env(1)
    assert env == {
        "OMP_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    assert "CUDA_VISIBLE_DEVICES" not in ResourceShares(2, 3).env(0)


def test_a_run_is_begun_or_gone_on_with(tmp_path):
    job = RunJob("muse", 3, Path("muse.toml"), tmp_path)
    assert job.argv() == [
        *("train", "--recipe", "muse.toml", "--seed", "3", "--out", str(tmp_path))
    ]
    (tmp_path / "recipe.toml").touch()
    assert job.argv() == ["train", "--resume", str(tmp_path)]


def test_the_child_process_runs_the_command():
    """The child process is the command, and ends when its stdin does."""
    command = [sys.executable, "-m", "selfdistill.comparison.child_process"]
    command += ["selfdistill", "--version"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.read().startswith(b"selfdistill ")
        assert process.wait() == 0


def test_a_run_ends_with_its_parent(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "selfdistill.comparison.child_process", str(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(2) == b"up"
        process.stdin.close()
        assert process.wait(timeout=30) == -signal.SIGTERM
