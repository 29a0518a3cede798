"""Every method killed at a random moment and resumed: bit for bit the run that was not killed."""

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from engine_runs import (
    assert_same_end,
    companions,
    exit_codes,
    start,
    start_two,
    write_masks,
    write_npz,
)
from faults import Fault

from selfdistill.core import METHODS
from selfdistill.recipe.build_method import unsupported_reason
from selfdistill.tasks import Classification

KILLED = [*METHODS, "muse+cskd", "kd+at", "exits+crd"]
DENSE = [n for n in METHODS if unsupported_reason(METHODS[n], Classification)]
STEPS = 15  # 3 epochs of 5
KINDS = ("step", "event", "event", "torn", "torn", "clock", "clock")


def pytest_generate_tests(metafunc):
    if "number" in metafunc.fixturenames:
        metafunc.parametrize("number", range(metafunc.config.getoption("--kills")))


class Straight(NamedTuple):
    """A run that nothing disturbed, what its processes counted, and how long it took."""

    out: Path
    counts: list[dict[str, int]]
    seconds: float


class Runs:
    """Runs of one process or two on the same few pictures."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.npz, self.masks = write_npz(root / "tiny.npz"), write_masks(root / "masks")
        self.known: dict[tuple[str, int], Straight] = {}
        exit_codes([start(self.keys("ce") | {"out": str(root / "first")})])  # the server imports

    def keys(self, method: str) -> dict[str, Any]:
        network, data = {"dropout": 0.2}, {"data": f"npz:{self.npz}"}
        if method in DENSE:
            network |= {"dense": True}
            data = {"data": f"folder:{self.masks}", "task": "segmentation", "val_fraction": 0.25}
        return {
            "method": method, "model": network, "device": "cpu", "epochs": 3, "batch_size": 8,
            "save_every_steps": 2, "log_every_steps": 1, "ema_decay": 0.9, **data,
            **companions(method, lambda: network),
        }  # fmt: skip

    def start(self, method: str, out: Path, faults: list[Fault]) -> list[Any]:
        keys = self.keys(method) | {"resume": (out / "recipe.toml").exists()}
        if len(faults) == 2:
            return start_two(out, keys, faults)
        return [start(keys | {"out": str(out)}, fault=faults[0])]

    def straight(self, method: str, processes: int) -> Straight:
        if (method, processes) not in self.known:
            out = self.root / f"{method}-{processes}"
            begun = time.monotonic()
            assert exit_codes(self.start(method, out, [Fault()] * processes)) == [0] * processes
            seconds = time.monotonic() - begun
            files = [out.with_suffix(f".rank{rank}.json") for rank in range(processes)]
            counts = [json.loads(file.read_text()) for file in files]
            self.known[method, processes] = Straight(out, counts, seconds)
        return self.known[method, processes]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("straight"))


class Draw(NamedTuple):
    """A kill: of which processes, and at which moment of each or after which time."""

    faults: list[Fault]
    victims: list[int]
    delay: float | None

    @classmethod
    def random(cls, draw: random.Random, straight: Straight) -> "Draw":
        ranks = range(len(straight.counts))
        victims = draw.choice([*([rank] for rank in ranks), list(ranks)])
        kind = draw.choice(KINDS)
        if kind == "clock":
            return cls([Fault()] * len(ranks), victims, draw.uniform(0, straight.seconds))
        faults = []
        for rank, count in enumerate(straight.counts):
            most = {"event": count.get("event", 0), "torn": count.get("write", 0)}.get(kind, 0)
            own = Fault(kind if most else "step", draw.randint(1, most or STEPS), draw.random())
            faults.append(own if rank in victims else Fault())
        return cls(faults, victims, None)


def kill(runs: Runs, method: str, out: Path, drawn: Draw) -> bool:
    """Whether a run was killed rather than at its end before."""
    processes = runs.start(method, out, drawn.faults)
    if drawn.delay is not None:
        time.sleep(drawn.delay)
        for rank in drawn.victims:
            processes[rank].kill()
    struck = [processes[rank] for rank in drawn.victims]
    codes = exit_codes(struck)
    for other in processes:
        other.join(30)  # it hears of the loss by itself, unless it was still waiting for the other
        other.kill()
    assert set(codes) <= {-signal.SIGKILL, 0, 7}, drawn
    return -signal.SIGKILL in codes


@pytest.mark.slow
def test_killed_at_a_random_moment(tmp_path, runs, number):
    draw = random.Random(number)
    method = KILLED[number % len(KILLED)]
    straight = runs.straight(method, 2 if draw.random() < 0.15 else 1)
    out, tries = tmp_path / "run", 0
    drawn = Draw.random(draw, straight)
    while not kill(runs, method, out, drawn):  # it was faster than the clock
        shutil.rmtree(out)
        drawn, tries = Draw.random(draw, straight), tries + 1
        assert tries < 9
    ranks = len(straight.counts)
    assert exit_codes(runs.start(method, out, [Fault()] * ranks)) == [0] * ranks, (method, drawn)
    assert_same_end(out, straight.out, ranks)
