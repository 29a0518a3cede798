"""Every method killed at a random moment and resumed: bit for bit the run that was not killed."""

import random
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from engine_runs import assert_same_end, exit_codes
from faults import Fault
from straight_runs import ON_GRAPHS, STEPS, WITH_TOKENS, Runs, Straight

from selfdistill.core import METHODS

KILLED = [n for n in METHODS if n not in (*ON_GRAPHS, *WITH_TOKENS)]
KILLED += ["muse+cskd", "kd+at", "exits+crd"]
KINDS = ("step", "event", "event", "torn", "torn", "clock", "clock")


def pytest_generate_tests(metafunc):
    if "number" in metafunc.fixturenames:
        metafunc.parametrize("number", range(metafunc.config.getoption("--kills")))


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
