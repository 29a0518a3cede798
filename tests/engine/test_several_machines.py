"""Two "machines" of two processes on the loopback address, by the variables of each launcher."""

import os
import signal
import sys
import time

import pytest
import torch
from engine_runs import exit_codes, final, flat, images, lines, start, start_launched, write_npz

from selfdistill.data import Loader

# 20 steps of a network whose normalization no batch changes
LEARN = {
    "method": "ce", "device": "cpu", "epochs": 4, "batch_size": 8, "log_every_steps": 1,
    "num_workers": 0, "model": {"norm": "batch"}, "batchnorm": "frozen", "lr": 0.05,
}  # fmt: skip
STEPS = 20
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Held-out images that four processes cannot share evenly."""
    path = write_npz(tmp_path_factory.mktemp("data") / "tiny.npz", val=9, test=3)
    return LEARN | {"data": f"npz:{path}"}


@pytest.fixture(scope="module")
def alone(keys, tmp_path_factory):
    """The directory of a run in one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert exit_codes([start(keys | {"out": str(out)})]) == [0]
    return out


def losses(out):
    return [entry["losses"]["task"] for entry in lines(out) if entry["kind"] == "step"]


def agrees(out, reference):
    """A run's losses, scores, weights and files are those of another, of other processes."""
    assert len(losses(out)) == STEPS
    assert losses(out) == pytest.approx(losses(reference), rel=0, abs=1e-6)
    for stem, tensors in final(reference).tensors.items():
        for name, value in tensors.items():
            torch.testing.assert_close(final(out).tensors[stem][name], value, rtol=1e-5, atol=1e-6)
    scores = [[e for e in lines(o) if e["kind"] == "final"] for o in (out, reference)]
    assert scores[0] == scores[1]
    files = [{p.relative_to(o) for p in o.rglob("*")} for o in (out, reference)]
    assert files[0] == files[1]
    for table in reference.glob("*.csv"):
        assert (out / table.name).read_bytes() == table.read_bytes(), table.name


@pytest.mark.parametrize("launcher", ["torchrun", "srun", pytest.param("ray", marks=SLOW)])
def test_four_processes_are_as_one(tmp_path, keys, alone, launcher):
    processes = start_launched(tmp_path / "run", keys, 2, 2, launcher)
    assert exit_codes(processes) == [0, 0, 0, 0]
    agrees(tmp_path / "run", alone)
    assert "devices = 2\nnum_nodes = 2\n" in (tmp_path / "run" / "recipe.toml").read_text()


@pytest.mark.parametrize(
    ("first", "then"), [((2, 2), (1, 1)), pytest.param((1, 1), (2, 2), marks=SLOW)]
)
def test_a_resume_on_another_number_of_processes(tmp_path, keys, alone, first, then):
    """SIGUSR1 to one process stops all, and the run goes on in others with the same samples."""
    out = tmp_path / "run"
    processes = start_launched(out, keys, *first, each_step=0.3)
    wait_for_a_checkpoint(out)
    os.kill(processes[-1].pid, signal.SIGUSR1)
    assert exit_codes(processes) == [128 + signal.SIGUSR1] * len(processes)
    assert not final(out).state["finished"]
    assert 0 < final(out).state["step"] < STEPS
    processes = start_launched(out, keys | {"resume": True}, *then)
    assert exit_codes(processes) == [0] * len(processes)
    agrees(out, alone)


def wait_for_a_checkpoint(out):
    end = time.monotonic() + 120
    while not list(out.glob("checkpoints/step-*")):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("world", [2, 3, 4, 6, 12])
def test_shares_in_the_order_of_ranks_are_the_order_of_one(world):
    usual = {"batch_size": 12, "seed": 0, "mean": (0.5,) * 3, "std": (0.3,) * 3, "crop_padding": 1,
             "flip": True}  # fmt: skip
    one = Loader(images(50), **usual)
    shares = [Loader(images(50), rank=rank, world_size=world, **usual) for rank in range(world)]
    for epoch, start_step in ((0, 0), (1, 2)):
        steps = zip(*(share.epoch(epoch, start_step) for share in shares), strict=True)
        for step, reference in zip(steps, one.epoch(epoch, start_step), strict=True):
            assert flat(iter(step)) == flat(iter([reference]))
            joined = torch.cat([batch.inputs for batches in step for batch in batches])
            assert torch.equal(joined, reference[0].inputs)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 3])
def test_one_that_is_killed_ends_all_and_the_run_goes_on(tmp_path, keys, alone, killed):
    out = tmp_path / "run"
    processes = start_launched(out, keys, 2, 2, each_step=0.3)
    wait_for_a_checkpoint(out)
    processes[killed].kill()
    began = time.monotonic()
    codes = exit_codes(processes)
    assert time.monotonic() - began < 60
    assert [code for rank, code in enumerate(codes) if rank != killed] == [7, 7, 7]
    assert exit_codes(start_launched(out, keys | {"resume": True}, 2, 2)) == [0, 0, 0, 0]
    agrees(out, alone)


@pytest.mark.slow
def test_torchrun_itself_on_two_nodes(tmp_path):
    """Two agents of torchrun, each with two processes, and no option of ours for any of it."""
    import socket
    import subprocess

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    train = ["-m", "selfdistill", "train", "--method", "ce", "--model", "cifar/resnet10_w16",
             "--data", "digits", "--device", "cpu", "--epochs", "1", "--max-train-images", "64",
             "--num-workers", "0", "--out", str(tmp_path / "run")]  # fmt: skip
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node",
             "2", "--master-addr", "127.0.0.1", "--master-port", port]  # fmt: skip
    agents = [
        subprocess.Popen([*agent, "--node-rank", str(node), *train],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for node in range(2)
    ]  # fmt: skip
    outputs = [agent.communicate(timeout=300)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    assert "report.html" in outputs[0]
    assert "report.html" not in outputs[1]  # the first process alone prints
    assert final(tmp_path / "run").state["finished"]
