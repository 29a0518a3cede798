"""The directory of a run: recipe, environment, metrics and checkpoints."""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..core import (
    ArtifactError,
    ConfigError,
    ResourceError,
    RunBusyError,
    read_regular,
    write_atomically,
)
from ..core.machine import environment

RUN_FORMAT = 2
"""Raised when the layout of a run changes; a run of any other format is refused, not misread."""
LOCK = ".lock"
_BEGUN = ("environment.json", "data.json")
_LOGS = (".log", ".out", ".err", ".txt")
_MAX_METRICS = 4 << 30


@contextmanager
def locked(folder: Path, busy: str, inside: str = "") -> Iterator[None]:
    """Lock a folder for this process; it and its subfolder `inside` are created if missing.

    Raises:
        RunBusyError: another process holds the lock; the message is `busy`.
        ResourceError: the folder cannot be created or written.
    """
    try:
        (folder / inside).mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunBusyError(busy) from None
    except OSError as error:
        raise ResourceError(
            f"the directory {folder} cannot be written: {error.strerror or error}"
        ) from error
    with lock:
        yield


class RunDirectory:
    """Recipe, environment, metrics and checkpoints of one run.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics_file = path / "metrics.jsonl"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the directory for this process; the system releases it however the process ends.

        Raises:
            RunBusyError: another process trains here.
            ResourceError: the folder cannot be created or written.
        """
        busy = f"another process is training in {self.path}; choose another --out"
        with locked(self.path, busy, self.checkpoints.name):
            yield

    def check_free(self, *allowed: str) -> None:
        """Raise `RunBusyError` if the directory holds a run already, or something else.

        Logs may lie in it, and what is left of a run that ended as it began.

        Args:
            allowed: names of what others leave there before a run begins.

        Raises:
            ConfigError: its name cannot be written into a report.
        """
        try:
            str(self.path).encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"the name {str(self.path)!r} is not UTF-8; choose another --out"
            ) from None
        self._check_no_run()
        if foreign := self._foreign(allowed):
            raise RunBusyError(
                f"{self.path} is not empty, {foreign} lies in it, and a run has a directory of its "
                "own; name another --out"
            )

    def _check_no_run(self) -> None:
        if (self.path / "recipe.toml").exists():
            raise RunBusyError(
                f"{self.path} holds a run already: --resume {self.path} goes on with it, "
                "another --out starts anew"
            )

    def _foreign(self, allowed: Collection[str]) -> str:
        """The name of something in the directory that no beginning run has left there, or ""."""
        if not self.path.is_dir():
            return ""
        try:
            begun = self.environment().get("format") == RUN_FORMAT
        except ArtifactError:
            begun = False
        for entry in sorted(self.path.iterdir()):
            hidden = entry.name.startswith(".")  # the lock, and drafts of files
            empty = entry == self.checkpoints and entry.is_dir() and not any(entry.iterdir())
            left = entry.name in (*allowed, *(_BEGUN if begun else ()))
            if not (hidden or empty or left or entry.suffix in _LOGS):
                return entry.name
        return ""

    def begin(self, recipe: str, files: Mapping[str, str] | None = None) -> None:
        """Write environment, further files and recipe of a new run.

        The recipe comes last, since a directory with a recipe is a run.

        Raises:
            RunBusyError: there is a run.
        """
        self._check_no_run()
        description = {"format": RUN_FORMAT, **environment()}
        self.write("environment.json", json.dumps(description, indent=1))
        for name, text in (files or {}).items():
            self.write(name, text)
        self.write("recipe.toml", recipe)

    def extend(self, recipe: str, results: Iterable[str]) -> None:
        """Write the recipe of a run that goes on, and delete results, which will be others."""
        for name in results:
            (self.path / name).unlink(missing_ok=True)
        self.write("recipe.toml", recipe)

    def recipe(self) -> str:
        """The recipe's text; everything that reads a run asks for it first.

        Raises:
            ConfigError: the directory holds no run, or its recipe is no text.
            ArtifactError: the run has another format than this version writes.
            ResourceError: it may not be read.
        """
        path = self.path / "recipe.toml"
        try:
            text = read_regular(path).decode().replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text: {error}") from None
        except PermissionError as error:
            raise ResourceError(f"{path} cannot be read: {_reason(error)}") from None
        except OSError:
            raise ConfigError(f"{self.path} holds no run (no recipe.toml in it)") from None
        if self.environment().get("format", RUN_FORMAT) != RUN_FORMAT:
            raise ArtifactError(
                f"{self.path} was made by another version of selfdistill, whose runs this one "
                "cannot read; train it anew"
            )
        return text

    def environment(self) -> dict[str, Any]:
        """Format, versions, machine and command of the run; {} where nothing recorded them.

        Raises:
            ArtifactError: the file is not JSON.
        """
        path = self.path / "environment.json"
        if not os.path.lexists(path):
            return {}
        try:
            return {"format": 1, **json.loads(read_regular(path))}  # the first format had no number
        except PermissionError as error:
            raise ResourceError(f"{path} cannot be read: {_reason(error)}") from None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise ArtifactError(f"{path} is not JSON: {error}") from None

    def write(self, name: str, content: str | bytes) -> Path:
        """Replace a file in one atomic move; `name` may lie in a folder that exists."""
        return write_atomically(self.path / name, content)

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl and flush it to the disk."""
        try:
            with self.metrics_file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise ResourceError(
                f"{self.metrics_file} could not be written: {error.strerror or error}"
            ) from error

    def metrics(self) -> list[dict[str, Any]]:
        """All complete lines of metrics.jsonl; one that a kill truncated is skipped.

        Raises:
            ResourceError: the file may not be read.
        """
        try:
            lines = read_regular(self.metrics_file, _MAX_METRICS).splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ResourceError(f"{self.metrics_file} cannot be read: {_reason(error)}") from None
        entries = []
        for line in lines:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):  # truncated, perhaps within a UTF-8 character
                continue
            if isinstance(entry, dict) and isinstance(entry.get("step"), int) and "kind" in entry:
                entries.append(entry)
        return entries

    def rewind(self, step: int) -> None:
        """Delete the lines that a resume from `step` will write again."""
        kept = (e for e in self.metrics() if e["step"] <= step and e["kind"] != "final")
        self.write(self.metrics_file.name, "".join(json.dumps(e) + "\n" for e in kept))


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
