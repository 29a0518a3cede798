"""Runs in processes of their own: killed, terminated, locked out."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from engine_runs import assert_same_run, final, lines, start, write_npz

from selfdistill.core import RunBusyError
from selfdistill.engine import checkpoint
from selfdistill.engine.run_directory import RunDirectory

STEPS = 35  # 7 epochs of 5


def keys(npz, out, **settings):
    usual = {
        "method": "muse", "negatives": "roll", "data": f"npz:{npz}", "model": {"dropout": 0.2},
        "device": "cpu", "epochs": 7, "batch_size": 8, "save_every_steps": 2,
        "log_every_steps": 1, "ema_decay": 0.9,
    }  # fmt: skip
    return usual | {"out": str(out)} | settings


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def straight(npz, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight") / "run"
    ended(start(keys(npz, out)))
    return out


def ended(process, code=0):
    process.join(120)
    assert process.exitcode == code
    process.close()


def steps_saved(out) -> int:
    directories = (out / "checkpoints").glob("step-*")
    return max((int(directory.name[5:]) for directory in directories), default=0)


def wait_for(out, step: int) -> None:
    end = time.monotonic() + 120
    while steps_saved(out) < step:
        assert time.monotonic() < end, "the run does not get on"
        time.sleep(0.002)


def killed_and_resumed(npz, out, want, draw: random.Random, kills: int) -> None:
    begun = False
    for kill in range(1, kills + 1):
        process = start(keys(npz, out, resume=begun), each_step=0.005)
        wait_for(out, STEPS * kill // (kills + 2) + 1)
        time.sleep(draw.uniform(0, 0.03))  # anywhere: in a step, a save, a line
        os.kill(process.pid, signal.SIGKILL)
        ended(process, -signal.SIGKILL)
        assert not checkpoint.newest(out / "checkpoints").state["finished"]
        begun = True
    ended(start(keys(npz, out, resume=True)))
    assert_same_run(out, want)


def test_killed_twice_and_resumed_equals_the_straight_run(tmp_path, npz, straight):
    killed_and_resumed(npz, tmp_path / "run", straight, random.Random(0), kills=2)


def test_run_in_a_process_leaves_what_it_promises(straight):
    names = {path.name for path in straight.iterdir()}
    promised = {"recipe.toml", "environment.json", "metrics.jsonl", "checkpoints", "exits.csv"}
    assert promised | {"report.html"} <= names
    assert final(straight).state["finished"]
    assert [e["kind"] for e in lines(straight)].count("final") == 1
    assert not list(straight.rglob("*.p*kl")) + list(straight.rglob("*.pt"))


def test_second_process_is_refused_and_harms_nothing(tmp_path, npz):
    out = tmp_path / "run"
    process = start(keys(npz, out, save_every_steps=1), each_step=2)
    wait_for(out, 1)
    before = (out / "recipe.toml").read_bytes()
    with pytest.raises(RunBusyError), RunDirectory(out).held():
        pass
    ended(start(keys(npz, out, resume=True, save_every_steps=1)), code=3)
    ended(start(keys(npz, out)), code=3)
    assert process.is_alive()
    assert (out / "recipe.toml").read_bytes() == before
    os.kill(process.pid, signal.SIGKILL)
    ended(process, -signal.SIGKILL)
    with RunDirectory(out).held():  # the system let go of the lock
        pass


def command(*arguments) -> subprocess.Popen:
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    arguments = [sys.executable, "-m", "selfdistill", "train", *map(str, arguments)]
    return subprocess.Popen(
        arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_terminated_command_saves_and_says_so(tmp_path, npz, number, code):
    out = tmp_path / "run"
    small = ("--model", "cifar/resnet10_w16", "--batch-size", 8, "--device", "cpu")
    process = command(
        "--data", f"npz:{npz}", *small, "--epochs", 500, "--save-every-steps", 5, "--out", out
    )
    wait_for(out, 5)
    process.send_signal(number)
    output, complained = process.communicate(timeout=60)
    assert process.returncode == code, complained
    assert "Traceback" not in complained
    assert "--resume" in output
    newest = final(out)
    assert not newest.state["finished"]
    steps = [e["step"] for e in lines(out)]
    assert not steps or max(steps) <= newest.state["step"]


def test_terminated_process_saves_the_step_at_hand(tmp_path, npz):
    out = tmp_path / "run"
    process = start(keys(npz, out, save_every_steps=0), each_step=0.05)
    wait_for(out, 5)
    os.kill(process.pid, signal.SIGTERM)
    ended(process, code=143)
    assert not final(out).state["finished"]
