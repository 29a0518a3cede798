"""Runs as independent processes, several at a time, on this machine."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch

from ..engine.signals import Interrupted, Signals
from ..recipe.schema import Recipe
from .jobs import (
    LOOK,
    JobProcess,
    JobResult,
    RunJob,
)


class Machine(NamedTuple):
    """What the runs of a study share.

    Attributes:
        jobs: runs at a time.
        threads: of each of them.
        gpus: for each of the jobs what its CUDA_VISIBLE_DEVICES is; empty leaves it alone.
    """

    jobs: int
    threads: int
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.jobs} at a time, {self.threads} thread{'s' * (self.threads > 1)} each"

    def env(self, slot: int) -> dict[str, str]:
        """The environment of the run that is made in this place among the jobs."""
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        return threads | ({"CUDA_VISIBLE_DEVICES": self.gpus[slot]} if self.gpus else {})


def share_out(
    recipe: Recipe, runs: int, jobs: int | None = None, threads: int | None = None
) -> Machine:
    """How many runs at a time, and what each of them gets.

    Left to itself there is one run for each GPU that the recipe's `devices` leave, or on a CPU one
    for each core, since two runs on a core each are done sooner than one after the other on both.

    Args:
        recipe: of any of the runs.
        runs: how many are to be made.
        jobs, threads: what was asked for; None is the choice above.
    """
    gpus = _gpus() if recipe.device in ("auto", "cuda") else []
    if gpus:
        most = max(1, len(gpus) // recipe.devices)
    else:
        most = 1 if recipe.device == "mps" else max(1, cores() // recipe.devices)
    jobs = jobs or max(1, min(most, runs))
    threads = threads or max(1, cores() // (jobs * recipe.devices))
    return Machine(jobs, threads, _dealt(gpus, recipe.devices, jobs) if len(gpus) > 1 else ())


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> list[str]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu for gpu in named.split(",") if gpu and gpu != "-1"]
    return [str(i) for i in range(torch.cuda.device_count())]


def _dealt(gpus: Sequence[str], devices: int, jobs: int) -> tuple[str, ...]:
    """So many GPUs for each job, in turns."""
    hands = [gpus[i : i + devices] for i in range(0, len(gpus) - devices + 1, devices)]
    return tuple(",".join(hands[job % len(hands)]) for job in range(jobs)) if hands else ()


def run_here(orders: Sequence[RunJob], machine: Machine) -> Iterator[JobResult]:
    """Make the runs, and tell of each as soon as it has ended.

    SIGTERM and Ctrl-C are passed on; the runs save and stop, and are not told of.

    Raises:
        Interrupted: a signal came; all runs have ended.
    """
    waiting, free = list(orders), list(range(machine.jobs))
    running: dict[int, JobProcess] = {}
    signals = Signals()
    with signals.caught(), ExitStack() as stack:
        while (waiting and not signals.signal_number) or running:
            while waiting and free and not signals.signal_number:
                slot = free.pop(0)
                begun = JobProcess(waiting.pop(0), **machine.env(slot))
                running[slot] = stack.enter_context(begun)
            time.sleep(LOOK)
            for slot, process in list(running.items()):
                if signals.signal_number:
                    process.stop()
                if ended := process.ended():
                    free.append(slot)
                    del running[slot]
                    if not (signals.signal_number and ended.code):  # stopped, not failed
                        yield ended
    if signals.signal_number:
        raise Interrupted(signals.signal_number)
