"""SLURM launcher: runs as jobs of a cluster, through submitit."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core import ConfigError, ResourceError
from ..signals import Interrupted, Signals
from .jobs import POLL_SECONDS, JobResult, RunJob, SlurmJob

# submitit's own default of five minutes is for trying. A run that is cut off by its time saves,
# and is queued again so many times.
DEFAULTS = {"name": "selfdistill", "timeout_min": 240}
_MAX_REQUEUES = 50
_SHARED = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node")


def run_on_slurm(
    jobs: Sequence[RunJob],
    folder: Path,
    options: Mapping[str, Any],
    max_jobs: int | None = None,
    threads: int | None = None,
) -> Iterator[JobResult]:
    """Submit the runs as one job array, and yield the result of each as soon as it has ended.

    SIGTERM and Ctrl-C cancel the jobs; SLURM gives them time to save.

    Args:
        jobs: the runs; their paths must be the same on all machines.
        folder: for submitit's own files.
        options: submitit's names for sbatch's options (`partition`, `gpus_per_node`,
            `timeout_min`, …); `cluster` = "local" runs the jobs on this machine.
        max_jobs: limit on jobs at a time; None is no limit.
        threads: number of CPU threads of each run; None is what the cluster grants it.

    Raises:
        ConfigError: an unknown option or a value that does not fit.
        ResourceError: submitit is not installed, or there is no SLURM.
        Interrupted: a signal came; the jobs are cancelled.
    """
    return _submit_and_wait(_executor(folder, options, max_jobs), jobs, threads)


def _submit_and_wait(
    executor: Any, jobs: Sequence[RunJob], threads: int | None
) -> Iterator[JobResult]:
    signals = Signals()
    with signals.caught():
        with executor.batch():
            waiting = [(job, executor.submit(SlurmJob(job, threads))) for job in jobs]
        try:
            while waiting and not signals.signal_number:
                time.sleep(POLL_SECONDS)
                for job, submission in list(waiting):
                    if submission.done():
                        waiting.remove((job, submission))
                        yield _result(job, submission)
        finally:  # of a signal, or because who asked goes on no more
            for _, submission in waiting:
                submission.cancel(check=False)
    if signals.signal_number:
        raise Interrupted(signals.signal_number)


def _executor(folder: Path, options: Mapping[str, Any], max_jobs: int | None) -> Any:
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
    if max_jobs:
        parameters["slurm_array_parallelism"] = max_jobs
    try:
        executor = submitit.AutoExecutor(folder, cluster, slurm_max_num_timeout=_MAX_REQUEUES)
        executor.update_parameters(**{**DEFAULTS, **parameters})
    except RuntimeError:
        raise ResourceError(
            "there is no SLURM here (no srun on the path); --launcher local trains on this machine"
        ) from None
    except (NameError, ValueError, AssertionError) as error:
        raise ConfigError(f"--slurm: {str(error).splitlines()[0]}") from None
    return executor


def _result(job: RunJob, submission: Any) -> JobResult:
    """Result of a job; one that the cluster ended has no exit code of its own."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        result: JobResult = submission.result()
        return result
    except (FailedJobError, UncompletedJobError):
        paths = submission.paths
        error = f"error: job {submission.job_id} ended before its run; see {paths.stderr}"
        return JobResult(job, 1, f"{job.log_text()}\n{error}", 0.0)
