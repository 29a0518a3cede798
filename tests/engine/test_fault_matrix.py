"""Methods that keep different state, each fault, one process or two: a resume ends the same."""

import random
import signal

import pytest
from engine_runs import assert_same_end, exit_codes
from faults import Fault, tear
from straight_runs import STEPS, Runs

METHODS = (
    "ce", "muse", "muse-online", "mimkd", "crd", "frskd", "mixskd", "ddgsd", "dml", "kdcl",
    "snapshot", "muse+cskd",
)  # fmt: skip
FAULTS = {"kill": -signal.SIGKILL, "term": 143, "full": 7, "torn": -signal.SIGKILL}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    # SIGTERM saves where it strikes; two processes average there, which changes the last bit
    return Runs(tmp_path_factory.mktemp("straight"), save_every_steps=(2, 1))


def disturbed(draw, fault, writes) -> Fault:
    if fault == "full":
        return Fault("full", draw.randint(1, writes), draw.random())
    return Fault("term" if fault == "term" else "step", draw.randint(6, STEPS - 1))


def tear_newest(draw, out) -> None:
    newest = max((out / "checkpoints").glob("step-*"))
    tear(draw.choice(sorted(newest.iterdir())), draw.random())


def strike(runs, tmp_path, method, fault, processes):
    draw = random.Random(f"{method} {fault} {processes}")
    straight, out = runs.straight(method, processes), tmp_path / "run"
    struck = 0 if fault == "full" else draw.randrange(processes)  # the first alone writes
    faults = [Fault()] * processes
    faults[struck] = disturbed(draw, fault, straight.counts[0]["write"])
    codes = exit_codes(runs.start(method, out, faults))
    assert codes[struck] == FAULTS[fault], faults
    assert codes[1 - struck] == (143 if fault == "term" else 7) if processes == 2 else True
    if fault == "torn":
        tear_newest(draw, out)
    assert exit_codes(runs.start(method, out, [Fault()] * processes)) == [0] * processes, faults
    assert_same_end(out, straight.out, processes)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_method_with_memories(runs, tmp_path, fault):
    strike(runs, tmp_path, "crd", fault, 1)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("method", METHODS)
def test_a_fault_of_every_kind_of_method(runs, tmp_path, method, fault, processes):
    strike(runs, tmp_path, method, fault, processes)
