"""What a run directory holds, read once and ready to be shown."""

import csv
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..core import ArtifactError, ConfigError, Task
from ..engine.run_directory import RunDirectory
from ..functional.calibration import expected_calibration_error
from ..tasks import TASKS, Classification
from .measured import MeasuredTable, read_measured

LAST = "student"  # the predictor that is the whole network
PICTURES = "pictures"  # the folder of what it sees


class ExitEntry(NamedTuple):
    """A row of exits.csv; scores are fractions, None where nothing was judged."""

    name: str
    parameters: int
    macs: int
    val: float | None
    test: float | None

    def score(self, split: str) -> float | None:
        """The score on "test" or "validation"."""
        return self.test if split == "test" else self.val


class Calibration(NamedTuple):
    """A predictor's reliability table on the images of one split.

    Attributes:
        edges: of the bins, one more than there are bins.
        images: in each bin.
        confidence, accuracy: their mean probability and the share that is right; nan in empty bins.
    """

    edges: NDArray[np.float64]
    images: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error."""
        columns = (self.images, self.confidence, self.accuracy)
        return expected_calibration_error(torch.from_numpy(np.stack(columns, 1)))


class Confusion(NamedTuple):
    """How often each class was taken for each: `counts[true, predicted]`."""

    classes: list[str]
    counts: NDArray[np.int64]


class ByClass(NamedTuple):
    """What is known of each class of the whole network's answers.

    Attributes:
        classes: their names.
        columns: {name: numbers}, shares as fractions, nan where there was nothing to judge.
        counts: the columns that hold whole numbers.
    """

    classes: list[str]
    columns: dict[str, list[float]]
    counts: frozenset[str]


@dataclass(frozen=True)
class RunData:
    """A run as the report sees it; what the directory lacks is empty or None.

    Attributes:
        name: of the directory.
        recipe: its keys, `options` among them.
        environment: where it ran.
        steps, epochs: lines of metrics.jsonl of that kind.
        final: the last line of kind "final", or {}.
        exits: rows of exits.csv.
        task: what the labels mean, a class of `tasks.TASKS`.
        classes: their names, by data.json.
        confusion: of the whole network.
        by_class: of the whole network.
        calibrations: of each predictor, by split.
        measured: what `selfdistill exits` found.
        pictures: the files in `pictures/`, in order.
    """

    name: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    final: dict[str, Any]
    exits: list[ExitEntry]
    task: type[Task]
    classes: list[str]
    confusion: Confusion | None
    by_class: ByClass | None
    calibrations: dict[str, dict[str, Calibration]]
    measured: MeasuredTable | None
    pictures: list[Path]

    @property
    def metric(self) -> str:
        """The score that the run is about, by its name in the tables."""
        return self.task.primary_metric

    @property
    def calibration(self) -> dict[str, Calibration]:
        """Of each predictor, on the images that the main figures are of."""
        return self.calibrations.get("test" if self.split == "test" else "val", {})

    @cached_property
    def last(self) -> ExitEntry | None:
        """The whole network's row."""
        return next((row for row in self.exits if row.name == LAST), None)

    @cached_property
    def split(self) -> str:
        """The images that the main figures are of: "test", or "validation" without any."""
        judged = any(row.test is not None for row in self.exits) or "test" in self.final
        return "test" if judged else "validation"

    @cached_property
    def stages(self) -> int:
        """How many exits there are before the last, counted by the highest number in any name."""
        names = {row.name for row in self.exits}
        for entry in (*self.steps[-1:], *self.epochs[-1:]):
            names |= entry.get("losses", {}).keys() | entry.get("monitors", {}).keys()
            names |= entry.get("val", {}).keys()
        return max((number for name in names if (number := stage(name))), default=0)

    @cached_property
    def score(self) -> float | None:
        """The whole network's final score, or that after the last epoch."""
        if self.last:
            return self.last.score(self.split)
        scores = [epoch["val"][LAST] for epoch in self.epochs if LAST in epoch.get("val", {})]
        return scores[-1].get(self.metric) if scores else None


def stage(name: str) -> int | None:
    """The number that ends a name: 3 for "exit3" and "soft/3", None for "task" and "student"."""
    found = re.fullmatch(r"(?:exit|.*/)(\d{1,3})", name)
    return int(found[1]) if found else None


def read(run: RunDirectory) -> RunData:
    """All that the directory holds.

    Raises:
        ConfigError: there is no run here, or its recipe is not TOML.
        ArtifactError: a table in it cannot be read.
    """
    try:
        recipe = tomllib.loads(run.recipe())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{run.path / 'recipe.toml'} is not TOML: {error}") from None
    kinds: dict[str, list[dict[str, Any]]] = {"step": [], "epoch": [], "final": []}
    for entry in run.metrics():
        kinds.setdefault(entry.get("kind", ""), []).append(entry)
    data = _json(run.path / "data.json")
    task = _task(data.get("task", Classification.name))
    return RunData(
        name=run.path.resolve().name,
        recipe=recipe,
        environment=_json(run.path / "environment.json"),
        steps=kinds["step"],
        epochs=kinds["epoch"],
        final=kinds["final"][-1] if kinds["final"] else {},
        exits=_exits(run.path / "exits.csv", task.primary_metric),
        task=task,
        classes=[_one_line(name) for name in data.get("classes", [])],
        confusion=_confusion(run.path / "confusion.csv"),
        by_class=_by_class(run.path / "classes.csv"),
        calibrations=_calibrations(run.path / "calibration.csv"),
        measured=read_measured(run.path / "exits-measured.csv", task.primary_metric),
        pictures=sorted((run.path / PICTURES).glob("*.png")),
    )


def _task(name: str) -> type[Task]:
    if name not in TASKS:
        raise ArtifactError(f"data.json names the task '{name}', which this version does not know")
    return TASKS[name]


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON: {error}") from None


def _exits(path: Path, metric: str) -> list[ExitEntry]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        try:
            return [_exit(row, metric) for row in csv.DictReader(stream)]
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path} is no table of exits ({error})") from None


def _exit(row: Mapping[str, str], metric: str) -> ExitEntry:
    scores = [float(row[f"{split}_{metric}"] or "nan") for split in ("val", "test")]
    val, test = (None if math.isnan(score) else score for score in scores)
    return ExitEntry(row["predictor"], int(row["parameters"]), int(row["macs"]), val, test)


def _confusion(path: Path) -> Confusion | None:
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="") as stream:
        try:
            classes, *rows = csv.reader(stream)
            counts = np.array(rows, dtype=np.int64)
        except ValueError as error:
            raise ArtifactError(f"{path} is no table of counts ({error})") from None
    if counts.shape != (len(classes), len(classes)):
        raise ArtifactError(f"{path} has {len(classes)} classes, but counts {counts.shape}")
    return Confusion([_one_line(name) for name in classes], counts)


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _by_class(path: Path) -> ByClass | None:
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="") as stream:
        try:
            (_, *names), *rows = csv.reader(stream)
            classes, *columns = zip(*rows, strict=True)
            texts = dict(zip(names, columns, strict=True))
            numbers = {name: [float(cell or "nan") for cell in texts[name]] for name in names}
        except ValueError as error:
            raise ArtifactError(f"{path} is no table of classes ({error})") from None
    whole = frozenset(name for name in names if all(cell.isdecimal() for cell in texts[name]))
    return ByClass([_one_line(name) for name in classes], numbers, whole)


def _calibrations(path: Path) -> dict[str, dict[str, Calibration]]:
    """{split: {predictor: table}}."""
    if not path.exists():
        return {}
    bins: dict[str, dict[str, list[list[float]]]] = {}
    columns = ("low", "high", "images", "confidence", "accuracy")
    with path.open(encoding="utf-8", newline="") as stream:
        try:
            for row in csv.DictReader(stream):
                cells = [float(row[column] or "nan") for column in columns]
                bins.setdefault(row["split"], {}).setdefault(row["predictor"], []).append(cells)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path} is no table of calibration ({error})") from None
    return {
        split: {name: _calibration(np.array(table)) for name, table in predictors.items()}
        for split, predictors in bins.items()
    }


def _calibration(table: NDArray[np.float64]) -> Calibration:
    low, high, images, confidence, accuracy = table.T
    return Calibration(np.append(low, high[-1]), images.astype(int), confidence, accuracy)
