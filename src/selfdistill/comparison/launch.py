"""Local launcher: runs as independent processes, several at a time, on this machine."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import torch

from ..core.machine import num_cores
from ..recipe.schema import Recipe
from ..signals import Interrupted, Signals
from .fork_server import ForkServer, fork_server
from .jobs import POLL_SECONDS, JobProcess, JobResult, RunJob

IMPORTS = ("selfdistill.cli.train", "selfdistill.runs.train")
OPTIONAL_IMPORTS = ("timm", "torchvision")
_CAN_FORK = sys.platform == "linux"  # elsewhere a library may have started threads at its import


@dataclass(frozen=True)
class ResourceShares:
    """CPU threads and GPUs of this machine, divided among the runs of a study.

    Attributes:
        jobs: number of runs at a time.
        threads: number of CPU threads of each run.
        gpus: CUDA_VISIBLE_DEVICES of each job slot; empty leaves the variable alone.
    """

    jobs: int
    threads: int
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.jobs} at a time, {self.threads} thread{'s' * (self.threads > 1)} each"

    def env(self, slot: int) -> dict[str, str]:
        """Environment variables of the run in this job slot."""
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        return threads | ({"CUDA_VISIBLE_DEVICES": self.gpus[slot]} if self.gpus else {})


def share_resources(
    recipe: Recipe, num_runs: int, jobs: int | None = None, threads: int | None = None
) -> ResourceShares:
    """Choose how many runs train at a time, and which threads and GPUs each gets.

    By default one run for each GPU that the recipe's `devices` leave, or on a CPU one for each
    core, since two runs on a core each are done sooner than one after the other on both.

    Args:
        recipe: of any of the runs.
        num_runs: number of runs to train.
        jobs, threads: values given by the user; None is the choice above.
    """
    gpus = _visible_gpus() if recipe.device in ("auto", "cuda") else []
    if gpus:
        max_jobs = max(1, len(gpus) // recipe.devices)
    else:
        max_jobs = 1 if recipe.device == "mps" else max(1, num_cores() // recipe.devices)
    jobs = jobs or max(1, min(max_jobs, num_runs))
    threads = threads or max(1, num_cores() // (jobs * recipe.devices))
    several = len(gpus) > 1
    return ResourceShares(jobs, threads, _share_gpus(gpus, recipe.devices, jobs) if several else ())


def _visible_gpus() -> list[str]:
    """GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    if not torch.cuda.is_available():
        return []
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is not None:
        return [gpu for gpu in variable.split(",") if gpu and gpu != "-1"]
    return [str(i) for i in range(torch.cuda.device_count())]


def _share_gpus(gpus: Sequence[str], devices: int, jobs: int) -> tuple[str, ...]:
    """`devices` GPUs for each job, in turns."""
    groups = [gpus[i : i + devices] for i in range(0, len(gpus) - devices + 1, devices)]
    return tuple(",".join(groups[job % len(groups)]) for job in range(jobs)) if groups else ()


def _fork_server(shares: ResourceShares) -> AbstractContextManager[ForkServer]:
    imported = [name for name in OPTIONAL_IMPORTS if name in sys.modules]  # the rows need these
    return fork_server([*IMPORTS, *imported], **shares.env(0))


def run_locally(jobs: Sequence[RunJob], shares: ResourceShares) -> Iterator[JobResult]:
    """Train the runs, and yield the result of each as soon as it has ended.

    SIGTERM and Ctrl-C are passed on; the runs save and stop, and have no result.

    Raises:
        Interrupted: a signal came; all runs have ended.
    """
    waiting, free_slots = list(jobs), list(range(shares.jobs))
    running: dict[int, JobProcess] = {}
    signals = Signals()
    with signals.caught(), ExitStack() as stack:
        server = stack.enter_context(_fork_server(shares)) if _CAN_FORK and len(jobs) > 1 else None
        while (waiting and not signals.signal_number) or running:
            while waiting and free_slots and not signals.signal_number:
                slot = free_slots.pop(0)
                process = JobProcess(waiting.pop(0), server, **shares.env(slot))
                running[slot] = stack.enter_context(process)
            time.sleep(POLL_SECONDS)
            for slot, process in list(running.items()):
                if signals.signal_number:
                    process.stop()
                if result := process.poll():
                    free_slots.append(slot)
                    del running[slot]
                    if not (
                        signals.signal_number and result.code
                    ):  # a run that was stopped did not fail
                        yield result
    if signals.signal_number:
        raise Interrupted(signals.signal_number)
