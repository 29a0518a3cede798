"""One run of a study as a process of its own. Imports no torch: a job only waits for its process.

Used on this machine and, pickled by submitit, on others.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

COMMAND = (sys.executable, "-m", "selfdistill.comparison.child_process")
LOG = "log.txt"
LOOK = 0.2  # seconds between two looks at a process
_PATIENCE = 30  # seconds that a run has to save, as SLURM grants by default


class RunJob(NamedTuple):
    """One run to be made.

    Attributes:
        row, seed: its place in the grid.
        recipe: the file with its row's recipe.
        place: its directory.
    """

    row: str
    seed: int
    recipe: Path
    place: Path

    def words(self) -> list[str]:
        """What to tell the command: to begin the run, or to go on with it."""
        if (self.place / "recipe.toml").exists():
            return ["train", "--resume", str(self.place)]
        begin = ["train", "--recipe", str(self.recipe), "--seed", str(self.seed)]
        return [*begin, "--out", str(self.place)]

    def said(self, since: int = 0) -> str:
        """What the run's processes wrote into its log, from so many bytes on."""
        log = self.place / LOG
        return log.read_bytes()[since:].decode(errors="replace") if log.exists() else ""


class JobResult(NamedTuple):
    """A process that came to its end; `log` is what it said, `code` its exit code."""

    order: RunJob
    code: int
    log: str
    seconds: float


class JobProcess:
    """A run's process, begun; as a context it does not outlive its caller."""

    def __init__(self, order: RunJob, **env: str) -> None:
        order.place.mkdir(parents=True, exist_ok=True)
        log = order.place / LOG
        self.order, self.began, self.asked = order, time.monotonic(), False
        self.before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [*COMMAND, *order.words()],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                env={**os.environ, **env},
            )

    def __enter__(self) -> "JobProcess":
        return self

    def __exit__(self, *fault: object) -> None:
        if self.process.poll() is None:  # left in a hurry
            self.stop()
            try:
                self.process.wait(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()  # its last checkpoint is there
        if self.process.stdin:
            self.process.stdin.close()

    def stop(self) -> None:
        """Ask once to save and stop."""
        if not self.asked:
            self.process.terminate()
            self.asked = True

    def ended(self) -> JobResult | None:
        """What came of it, if it is over."""
        code = self.process.poll()
        if code is None:
            return None
        said = self.order.said(self.before)
        return JobResult(self.order, code, said, time.monotonic() - self.began)


class SlurmJob:
    """A run as submitit wants it: called on some machine, and saved before that is taken away.

    Args:
        order: the run.
        threads: of its process; None is what the machine grants.
    """

    def __init__(self, order: RunJob, threads: int | None) -> None:
        self.order, self.threads = order, threads
        self.process: JobProcess | None = None

    def __call__(self) -> tuple[int, str, float]:
        """Exit code, log, and seconds of the run."""
        granted = self.threads or os.environ.get("SLURM_CPUS_PER_TASK")
        env = {"OMP_NUM_THREADS": str(granted)} if granted else {}
        # A run is one task of SLURM's, whatever processes it starts: lightning is not to count.
        os.environ.pop("SLURM_NTASKS", None)
        # SLURM warns all processes of a job of its end, and by default the warning kills.
        before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        with JobProcess(self.order, **env) as self.process:
            signal.signal(signal.SIGUSR2, before)
            while (ended := self.process.ended()) is None:
                time.sleep(LOOK)
        return ended[1:]

    def checkpoint(self) -> Any:
        """Called when the time is up or the machine is wanted: the run saves, and is queued."""
        from submitit.helpers import DelayedSubmission

        if self.process:
            self.process.stop()
            self.process.process.wait(timeout=_PATIENCE)
        return DelayedSubmission(SlurmJob(self.order, self.threads))
