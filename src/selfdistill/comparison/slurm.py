"""Runs as jobs of a SLURM cluster, through submitit."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core import ConfigError, ResourceError
from ..engine.signals import Interrupted, Signals
from .jobs import (
    LOOK,
    JobResult,
    RunJob,
    SlurmJob,
)

# submitit's own default of five minutes is for trying. A run that is cut off by its time saves,
# and is queued again so many times.
DEFAULTS = {"name": "selfdistill", "timeout_min": 240}
_REQUEUED = 50
_SHARED = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node")


def run_on_slurm(
    orders: Sequence[RunJob],
    folder: Path,
    options: Mapping[str, Any],
    jobs: int | None = None,
    threads: int | None = None,
) -> Iterator[JobResult]:
    """Submit the runs as one job array, wait for them, and tell of each when it has ended.

    SIGTERM and Ctrl-C cancel the jobs; SLURM gives them time to save.

    Args:
        orders: the runs; their paths must be the same on all machines.
        folder: for submitit's own files.
        options: submitit's names for what sbatch takes (`partition`, `gpus_per_node`,
            `timeout_min`, …); `cluster` = "local" tries the whole on this machine.
        jobs: at most so many at a time; None is what the cluster has.
        threads: of each run; None is what the cluster grants it.

    Raises:
        ConfigError: an option that is none.
        ResourceError: submitit is not installed, or there is no SLURM.
        Interrupted: a signal came; the jobs are cancelled.
    """
    return _submitted(_executor(folder, options, jobs), orders, threads)


def _submitted(executor: Any, orders: Sequence[RunJob], threads: int | None) -> Iterator[JobResult]:
    signals = Signals()
    with signals.caught():
        with executor.batch():
            waiting = [(order, executor.submit(SlurmJob(order, threads))) for order in orders]
        while waiting and not signals.signal_number:
            time.sleep(LOOK)
            for order, job in list(waiting):
                if job.done():
                    waiting.remove((order, job))
                    yield _ended(order, job)
        for _, job in waiting:
            job.cancel(check=False)
    if signals.signal_number:
        raise Interrupted(signals.signal_number)


def _executor(folder: Path, options: Mapping[str, Any], jobs: int | None) -> Any:
    """submitit's executor with all options set."""
    try:
        import submitit
    except ImportError:
        raise ResourceError(
            "--launcher submitit needs submitit; pip install selfdistill[slurm] brings it"
        ) from None
    cluster = options.get("cluster", "slurm")
    parameters = {k: v for k, v in options.items() if k != "cluster"}
    parameters = {k if k in _SHARED else f"slurm_{k}": v for k, v in parameters.items()}
    if jobs:
        parameters["slurm_array_parallelism"] = jobs
    try:
        executor = submitit.AutoExecutor(folder, cluster, slurm_max_num_timeout=_REQUEUED)
        executor.update_parameters(**{**DEFAULTS, **parameters})
    except RuntimeError:
        raise ResourceError(
            "there is no SLURM here (no srun on the path); --launcher local trains on this machine"
        ) from None
    except (NameError, ValueError, AssertionError) as error:
        raise ConfigError(f"--slurm: {str(error).splitlines()[0]}") from None
    return executor


def _ended(order: RunJob, job: Any) -> JobResult:
    """What came of a job; one that the cluster ended has no exit code of its own."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return JobResult(order, *job.result())
    except (FailedJobError, UncompletedJobError):
        sentence = f"error: job {job.job_id} ended before its run; see {job.paths.stderr}"
        return JobResult(order, 1, f"{order.said()}\n{sentence}", 0.0)
