"""Study directory: the description of a study, its recipes, runs, tables and page."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import tomli_w

from ..core import ArtifactError, ConfigError, RunBusyError, read_regular
from ..engine.run_directory import LOCK, RunDirectory, locked
from ..recipe.document import read_toml
from ..recipe.schema import write
from ..records.exit_scores import ExitScore
from ..runs.train import load_or_train_exits
from .grid import Study, study_from_dict
from .jobs import RunJob

STUDY_FILE = "study.toml"
_GRACE_SECONDS = 60.0  # in which runs of a study that was killed have saved and stopped


class StudyDirectory:
    """Files of a study.

    Args:
        path: its folder; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.study_file = path / STUDY_FILE

    def run_dir(self, row: str, seed: int) -> Path:
        """Directory of a run."""
        return self.path / "runs" / row / f"s{seed}"

    def job(self, row: str, seed: int) -> RunJob:
        """Job that trains a run."""
        return RunJob(row, seed, self.path / "recipes" / f"{row}.toml", self.run_dir(row, seed))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the directory for this process.

        Raises:
            RunBusyError: another process compares here.
            ResourceError: the folder cannot be made or written.
        """
        message = f"another process works on {self.path}; wait for it, or choose another --out"
        with locked(self.path, message):
            yield

    def read(self) -> Study | None:
        """Study that was started here, None if the folder is empty or missing.

        Raises:
            ConfigError: the folder holds something else.
            ArtifactError: the file that describes the study cannot be understood.
        """
        try:
            content = read_toml(read_regular(self.study_file))
        except (FileNotFoundError, NotADirectoryError):
            if self._has_other_content():
                raise ConfigError(
                    f"{self.path} is something else and no study (no {STUDY_FILE} in it); name "
                    "another directory by --out"
                ) from None
            return None
        except ValueError as error:
            raise ArtifactError(f"{self.study_file} is not TOML: {error}") from None
        return study_from_dict(content, str(self.study_file))

    def _has_other_content(self) -> bool:
        """Whether the path holds anything but the lock of a study that was refused."""
        if not self.path.is_dir():
            return self.path.exists()
        return any(path.name != LOCK for path in self.path.iterdir())

    def write(self, study: Study) -> None:
        """Write the description of the study, by which it is known again, and its recipes."""
        RunDirectory(self.path).write(STUDY_FILE, tomli_w.dumps(study.to_dict()))
        recipes = self.path / "recipes"
        recipes.mkdir(exist_ok=True)
        for row, recipe in study.rows.items():
            RunDirectory(recipes).write(f"{row}.toml", write(recipe))

    def exits(self, study: Study, row: str, seed: int) -> list[ExitScore]:
        """Exits of a run if it is finished, else an empty list.

        Raises:
            ConfigError: it was trained by another recipe.
        """
        run_dir = self.run_dir(row, seed)
        if not (run_dir / "exits.csv").exists():
            return []
        return load_or_train_exits(study.recipe(row, seed), run_dir)

    def throughput(self, row: str, seed: int) -> float | None:
        """Training images per second of a run, the median over its log, None where it has none.

        The first entry does not count: it is of the first step, in which all else starts.
        """
        log = RunDirectory(self.run_dir(row, seed)).metrics()
        entries = (entry.get("images_per_second") for entry in log)
        rates = [rate for rate in entries if isinstance(rate, float) and rate > 0][1:]
        return median(rates) if rates else None

    def wait_until_free(self, job: RunJob) -> None:
        """Wait for a process that still trains this run, such as that of a study that was killed.

        Raises:
            RunBusyError: it does not stop.
        """
        deadline = time.monotonic() + _GRACE_SECONDS
        while (job.run_dir / "recipe.toml").exists():
            try:
                with RunDirectory(job.run_dir).held():
                    return
            except RunBusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
