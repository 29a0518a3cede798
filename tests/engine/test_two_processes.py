"""Two processes on the CPU against one: the same weights, the same samples."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from engine_runs import (
    STEPS,
    companions,
    exit_codes,
    final,
    lines,
    network,
    pool,
    start,
    start_two,
    write_npz,
)
from safetensors.torch import load_file

from selfdistill.core import METHODS
from selfdistill.recipe.build_method import unsupported_reason
from selfdistill.recipe.build_run import build_run  # noqa: F401  registers the methods
from selfdistill.tasks import TASKS

LEARN = {
    "method": "ce", "device": "cpu", "epochs": 2, "batch_size": 8, "log_every_steps": 1,
    "num_workers": 0, "model": {"norm": "group"}, "lr": 0.05,
}  # fmt: skip


def ranks(out: Path, keys: dict) -> None:
    """Train in two processes to the end."""
    assert exit_codes(start_two(out, keys)) == [0, 0]


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def both(npz, tmp_path_factory):
    """The directories of a run in one process and of the same in two."""
    root = tmp_path_factory.mktemp("both")
    keys = LEARN | {"data": f"npz:{npz}"}
    single = start(keys | {"out": str(root / "one")})
    single.join(60)
    assert single.exitcode == 0
    ranks(root / "two", keys)
    return root / "one", root / "two"


def test_weights_are_those_of_one_process(both):
    one, two = (final(out) for out in both)
    assert two.state["step"] == one.state["step"]
    for stem in ("model", "optimizer"):
        assert two.tensors[stem].keys() == one.tensors[stem].keys()
        for name, value in one.tensors[stem].items():
            # a mean of two means of 4 is not rounded as a mean of 8 is, ten steps in a row
            torch.testing.assert_close(two.tensors[stem][name], value, rtol=1e-5, atol=1e-5)


def test_lines_are_those_of_one_process(both):
    one, two = (lines(out) for out in both)
    assert [(e["kind"], e["step"]) for e in two] == [(e["kind"], e["step"]) for e in one]
    for distributed, reference in zip(two, one, strict=True):
        for name, value in reference.get("losses", {}).items():
            assert distributed["losses"][name] == pytest.approx(value, rel=1e-4)
        assert distributed.get("val") == reference.get("val")
        assert distributed.get("test") == reference.get("test")


def test_a_parameter_that_takes_no_part_is_left_alone(npz, tmp_path):
    keys = LEARN | {"data": f"npz:{npz}", "model": {"norm": "group", "unused": True}}
    ranks(tmp_path / "two", keys)
    assert final(tmp_path / "two").tensors["model"]["unused"].tolist() == [1, 1]


def test_both_processes_see_all_samples_between_them():
    from engine_runs import flat, images

    from selfdistill.data import Loader

    usual = {"batch_size": 8, "seed": 0, "mean": (0.5,) * 3, "std": (0.3,) * 3, "crop_padding": 1,
             "flip": True}  # fmt: skip
    all_data = Loader(images(), **usual)
    shares = [Loader(images(), rank=rank, world_size=2, **usual) for rank in (0, 1)]
    for epoch in (0, 1):
        split = [flat(share.epoch(epoch)) for share in shares]
        assert len(split[0]) == len(split[1]) == STEPS * 4
        assert sorted(split[0] + split[1]) == sorted(flat(all_data.epoch(epoch)))


BATCH_NORM = {"model": {"norm": "batch"}, "method": "muse"}


@pytest.mark.parametrize(("ema", "quantize"), [(0.0, "off"), (0.9, "off"), (0.9, "aware")])
def test_all_processes_end_with_the_network_that_was_saved(tmp_path, npz, ema, quantize):
    keys = {"data": f"npz:{npz}", "ema_decay": ema, "quantize": quantize}
    ranks(tmp_path / "run", LEARN | BATCH_NORM | keys)
    first, second = (load_file(tmp_path / f"run.rank{rank}.safetensors") for rank in (0, 1))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert any(name.endswith("input_range") for name in first) == (quantize == "aware")
    saved = final(tmp_path / "run").tensors
    saved = saved["ema"] if ema else {
        **saved["method"], **{f"student.network.{n}": v for n, v in saved["model"].items()}
    }  # fmt: skip
    assert saved.keys() == first.keys()
    assert all(torch.equal(saved[name], first[name]) for name in saved)


def test_a_signal_between_two_epochs_stops_all_processes(tmp_path, npz):
    keys = LEARN | {"data": f"npz:{npz}", "epochs": 4}
    processes = start_two(tmp_path / "run", keys, signal_at_epoch=1)  # reaches the first one only
    assert exit_codes(processes) == [143, 143]
    assert not final(tmp_path / "run").state["finished"]


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_a_resume_goes_on(tmp_path, npz):
    keys = LEARN | BATCH_NORM | {"data": f"npz:{npz}", "epochs": 4}
    ranks(tmp_path / "straight", keys)
    processes = start_two(tmp_path / "run", keys, each_step=1.0)
    end = time.monotonic() + 120
    while len(list((tmp_path / "run").glob("checkpoints/step-*"))) < 1:
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.3)  # into the second epoch
    os.kill(processes[1].pid, signal.SIGTERM)
    assert exit_codes(processes) == [143, 143]
    assert not final(tmp_path / "run").state["finished"]
    ranks(tmp_path / "run", keys | {"resume": True})
    first, second = (final(tmp_path / name).tensors for name in ("straight", "run"))
    for stem, tensors in first.items():
        for name, value in tensors.items():
            if "running" in name:  # a mean over the processes, taken twice in one of the runs
                torch.testing.assert_close(second[stem][name], value, rtol=1e-5, atol=1e-6)
            else:
                assert torch.equal(second[stem][name], value), name
    epochs = [[e for e in lines(tmp_path / n) if e["kind"] == "epoch"] for n in ("straight", "run")]
    for one, other in zip(*epochs, strict=True):  # the resumed epoch is one of all processes, too
        assert other["losses"] == pytest.approx(one["losses"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_whose_fellow_is_killed_says_so(tmp_path, npz, killed):
    keys = LEARN | {"data": f"npz:{npz}", "epochs": 50}
    processes = start_two(tmp_path / "run", keys, each_step=0.2)
    end = time.monotonic() + 120
    while not list((tmp_path / "run").glob("checkpoints/step-*")):
        assert time.monotonic() < end
        time.sleep(0.01)
    processes[killed].kill()
    assert exit_codes(processes)[1 - killed] == 7


@pytest.mark.slow
def test_command_starts_its_processes_itself(tmp_path, npz, both):
    import subprocess

    script = tmp_path / "train.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import torch; torch.set_num_threads(1)\n"
        "from engine_runs import network\n"
        "import selfdistill\n"
        "torch.manual_seed(0)\n"
        f"keys = {LEARN | {'data': f'npz:{npz}', 'devices': 2, 'out': str(tmp_path / 'run')}!r}\n"
        "keys['model'] = network(**keys['model'])\n"
        "selfdistill.train(**keys)\n"
    )
    arguments = [sys.executable, str(script), str(Path(__file__).parent)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    first, second = final(tmp_path / "run").tensors["model"], final(both[1]).tensors["model"]
    assert all(torch.equal(first[name], second[name]) for name in second)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        n
        for n in METHODS
        if not unsupported_reason(METHODS[n], TASKS["classification"])
        and not METHODS[n].needs.distillation_token
    ],
)
def test_every_method_trains_in_two_processes(tmp_path, npz, method):
    keys = LEARN | {
        "data": f"npz:{npz}",
        "method": method,
        "model": {"norm": "batch"},
        "ema_decay": 0.9,
    }
    keys |= companions(method, lambda: {"norm": "batch"}) | pool(method, tmp_path)
    ranks(tmp_path / "run", keys)
    assert final(tmp_path / "run").state["finished"]
    names = final(tmp_path / "run").tensors["model"].keys()
    assert names == network().state_dict().keys() or METHODS[method].composite
