"""The directory that a study leaves behind."""

import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tomli_w

from ..core import ArtifactError, ConfigError, RunBusyError
from ..engine.run_directory import LOCK, RunDirectory, locked
from ..recipe.schema import write
from ..records.exit_scores import ExitScore
from ..runs.training import load_or_train_exits
from .grid import Study, from_plain
from .jobs import RunJob

ASKED = "study.toml"
_PATIENCE = 60.0  # seconds in which runs of a study that was killed have saved and stopped


class StudyDirectory:
    """What was asked, the runs, the tables and the page.

    Args:
        path: its folder; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = path / ASKED

    def place(self, row: str, seed: int) -> Path:
        """The directory of a run."""
        return self.path / "runs" / row / f"s{seed}"

    def order(self, row: str, seed: int) -> RunJob:
        """The run, to be made."""
        return RunJob(row, seed, self.path / "recipes" / f"{row}.toml", self.place(row, seed))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory for this process.

        Raises:
            RunBusyError: another process compares here.
            ResourceError: the folder cannot be made or written.
        """
        busy = f"another process works on {self.path}; wait for it, or choose another --out"
        with locked(self.path, busy):
            yield

    def read(self) -> Study | None:
        """The study that was begun here, None if there is nothing here yet.

        Raises:
            ConfigError: there is something else here.
            ArtifactError: the file that describes the study cannot be understood.
        """
        try:
            return from_plain(
                tomllib.loads(self.asked.read_text(encoding="utf-8")), str(self.asked)
            )
        except (FileNotFoundError, NotADirectoryError):
            if self._taken():
                raise ConfigError(
                    f"{self.path} is something else and no study (no {ASKED} in it); name another "
                    "directory by --out"
                ) from None
            return None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{self.asked} is not TOML: {error}") from None

    def _taken(self) -> bool:
        """Whether there is anything here but the lock of a study that was refused."""
        if not self.path.is_dir():
            return self.path.exists()
        return any(place.name != LOCK for place in self.path.iterdir())

    def write(self, study: Study) -> None:
        """Write down what is asked for, and each row's recipe."""
        recipes = self.path / "recipes"
        recipes.mkdir(exist_ok=True)
        for row, recipe in study.rows.items():
            RunDirectory(recipes).write(f"{row}.toml", write(recipe))
        text = tomli_w.dumps(study.plain())
        RunDirectory(self.path).write(ASKED, text)

    def exits(self, study: Study, row: str, seed: int) -> list[ExitScore]:
        """The exits of a run that is finished, else none.

        Raises:
            ConfigError: it was made by another recipe.
        """
        place = self.place(row, seed)
        if not (place / "exits.csv").exists():
            return []
        return load_or_train_exits(study.recipe(row, seed), place)

    def wait_until_free(self, order: RunJob) -> None:
        """Wait for a process that still trains here; those of a study that was killed stop soon.

        Raises:
            RunBusyError: it does not stop.
        """
        end = time.monotonic() + _PATIENCE
        while (order.place / "recipe.toml").exists():
            try:
                with RunDirectory(order.place).held():
                    return
            except RunBusyError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
