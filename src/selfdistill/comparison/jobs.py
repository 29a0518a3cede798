"""One run of a study as a process. Imports no torch: a job only waits for its process.

Used on this machine and, pickled by submitit, on others.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import child_process
from .fork_server import ForkedProcess, ForkServer

PROGRAM = "selfdistill"
LOG = "log.txt"
POLL_SECONDS = 0.2  # between two polls of a process
_GRACE_SECONDS = 30  # that a run has to save, as SLURM grants by default


@dataclass(frozen=True)
class RunJob:
    """A run to be trained.

    Attributes:
        row, seed: cell of the grid.
        recipe: file with the recipe of the row.
        run_dir: directory of the run.
    """

    row: str
    seed: int
    recipe: Path
    run_dir: Path

    def argv(self) -> list[str]:
        """Arguments of the command that starts the run, or resumes it if it was started."""
        if (self.run_dir / "recipe.toml").exists():
            return ["train", "--resume", str(self.run_dir)]
        start = ["train", "--recipe", str(self.recipe), "--seed", str(self.seed)]
        return [*start, "--out", str(self.run_dir)]

    def log_text(self, offset: int = 0) -> str:
        """Output of the run's processes, from this byte of the log file on."""
        log = self.run_dir / LOG
        return log.read_bytes()[offset:].decode(errors="replace") if log.exists() else ""


@dataclass(frozen=True)
class JobResult:
    """Exit code, output and duration in seconds of a process that has ended."""

    job: RunJob
    code: int
    log: str
    seconds: float


class JobProcess:
    """Running process of a job; as a context manager it does not outlive its caller.

    Args:
        job: the run.
        server: forks the process; None starts an interpreter of its own.
        env: environment variables of the process.
    """

    def __init__(self, job: RunJob, server: ForkServer | None = None, **env: str) -> None:
        job.run_dir.mkdir(parents=True, exist_ok=True)
        log = job.run_dir / LOG
        self.job, self.start, self.stopping = job, time.monotonic(), False
        self.log_offset = log.stat().st_size if log.exists() else 0
        self.process: subprocess.Popen[bytes] | ForkedProcess
        if server is None:
            with log.open("ab") as stream:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", child_process.__name__, PROGRAM, *job.argv()],
                    stdin=subprocess.PIPE,
                    stdout=stream,
                    stderr=stream,
                    env={**os.environ, **env},
                )
        else:
            self.process = server.start(PROGRAM, job.argv(), log, **env)

    def __enter__(self) -> "JobProcess":
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()
        if isinstance(self.process, subprocess.Popen) and self.process.stdin:
            self.process.stdin.close()

    def stop(self) -> None:
        """Ask the run once to save and stop."""
        if not self.stopping:
            self.process.terminate()
            self.stopping = True

    def end(self) -> None:
        """Ask the run to save and stop, and kill it if it takes too long."""
        if self.process.poll() is None:
            self.stop()
            try:
                self.process.wait(timeout=_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()  # its last checkpoint is on the disk

    def poll(self) -> JobResult | None:
        """Result of the job, None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        log = self.job.log_text(self.log_offset)
        return JobResult(self.job, code, log, time.monotonic() - self.start)


class SlurmJob:
    """A run as submitit calls it on some machine; it saves before that is taken away.

    Args:
        job: the run.
        threads: number of CPU threads of its process; None is what the machine grants.
    """

    def __init__(self, job: RunJob, threads: int | None) -> None:
        self.job, self.threads = job, threads
        self.process: JobProcess | None = None

    def __call__(self) -> JobResult:
        """Train the run to its end."""
        threads = self.threads or os.environ.get("SLURM_CPUS_PER_TASK")
        env = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        # SLURM warns all processes of a job of its end, and by default the warning kills.
        handler = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        with JobProcess(self.job, None, **env) as self.process:
            signal.signal(signal.SIGUSR2, handler)
            while (result := self.process.poll()) is None:
                time.sleep(POLL_SECONDS)
        return result

    def checkpoint(self) -> Any:
        """Called when the time is up or the machine is wanted: the run saves, and is queued."""
        from submitit.helpers import DelayedSubmission

        if self.process:
            self.process.end()
        return DelayedSubmission(SlurmJob(self.job, self.threads))
