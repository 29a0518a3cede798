"""All records of a run, read once, as the page shows them."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core import STUDENT, ArtifactError, Task
from ..engine.run_directory import RunDirectory
from ..recipe.run_origin import recipe_table
from ..records.calibration import Calibrations, CalibrationTable, read_calibrations
from ..records.class_tables import (
    ClassScores,
    ConfusionMatrix,
    read_class_scores,
    read_confusion,
)
from ..records.exit_measurements import ExitMeasurements, read_exit_measurements
from ..records.exit_scores import ExitScore, read_exit_scores
from ..records.mistakes import Mistake, read_mistakes
from ..records.training_data import DATA_FILE, read_training_data
from ..tasks import TASKS, Classification
from .formatting import exit_number

PICTURES = "pictures"
"""The folder of images with their labels and the student's predictions."""


@dataclass(frozen=True)
class RunData:
    """A run's records; what the directory lacks is empty or None.

    Attributes:
        name: of the directory.
        recipe: its keys, `options` among them.
        environment: where it ran.
        steps, epochs: entries of metrics.jsonl of that kind.
        final: its last entry of kind "final", or {}.
        exits: score and cost of each predictor.
        task: what the labels mean, a class of `tasks.TASKS`.
        classes: their names.
        confusion: of the full network.
        class_scores: of the full network.
        calibrations: of each predictor, by split.
        measured: what `selfdistill exits` measured.
        pictures: the files in `pictures/`, in order.
        mistakes: images that a classifier gets wrong.
    """

    name: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    final: dict[str, Any]
    exits: list[ExitScore]
    task: type[Task]
    classes: list[str]
    confusion: ConfusionMatrix | None
    class_scores: ClassScores | None
    calibrations: Calibrations
    measured: ExitMeasurements | None
    pictures: list[Path]
    mistakes: list[Mistake]

    @property
    def metric(self) -> str:
        """The primary metric, by its name in the tables."""
        return self.task.primary_metric

    @property
    def calibration(self) -> dict[str, CalibrationTable]:
        """Of each predictor, on the images of `split`."""
        return dict(self.calibrations.get(self.split, {}))

    @cached_property
    def student(self) -> ExitScore | None:
        """Score and cost of the full network."""
        return next((row for row in self.exits if row.predictor == STUDENT), None)

    @cached_property
    def split(self) -> str:
        """The split of the main figures: "test", or "val" where there are no test images."""
        evaluated = any(row.test_score is not None for row in self.exits) or "test" in self.final
        return "test" if evaluated else "val"

    @cached_property
    def stages(self) -> int:
        """Number of exits before the last, by the highest number in the name of any term."""
        names = {row.predictor for row in self.exits}
        for entry in (*self.steps[-1:], *self.epochs[-1:]):
            names |= entry.get("losses", {}).keys() | entry.get("monitors", {}).keys()
            names |= entry.get("val", {}).keys()
        return max((number for name in names if (number := exit_number(name))), default=0)

    @cached_property
    def has_exits(self) -> bool:
        """Whether there are early exits, and not only whole networks."""
        if not self.exits:  # the run was killed before its predictors were evaluated
            return self.stages > 0
        return any(exit_number(row.predictor) for row in self.exits)

    @property
    def has_peers(self) -> bool:
        """Whether other networks were trained along."""
        return any(row.predictor.startswith("peer") for row in self.exits)

    @cached_property
    def score(self) -> float | None:
        """The full network's final score, or that after the last epoch."""
        if self.student:
            return self.student.score(self.split)
        scores = [epoch["val"][STUDENT] for epoch in self.epochs if STUDENT in epoch.get("val", {})]
        return scores[-1].get(self.metric) if scores else None

    @cached_property
    def choosing_split(self) -> str:
        """The split to choose exits by; the test scores of chosen exits would else be too good."""
        evaluated = all(row.val_score is not None for row in self.exits)
        return "val" if evaluated else self.split


def read_run(run: RunDirectory) -> RunData:
    """All records of a run's directory.

    Raises:
        ConfigError: there is no run, or its recipe is not TOML.
        ArtifactError: a record cannot be read.
    """
    recipe = recipe_table(run.recipe(), run.path)
    kinds: dict[str, list[dict[str, Any]]] = {"step": [], "epoch": [], "final": []}
    for entry in run.metrics():
        kinds.setdefault(entry.get("kind", ""), []).append(entry)
    data = read_training_data(run.path) if (run.path / DATA_FILE).exists() else None
    confusion, class_scores = read_confusion(run.path), read_class_scores(run.path)
    return RunData(
        name=run.path.resolve().name,
        recipe=recipe,
        environment={key: v for key, v in run.environment().items() if key != "format"},
        steps=kinds["step"],
        epochs=kinds["epoch"],
        final=kinds["final"][-1] if kinds["final"] else {},
        exits=read_exit_scores(run.path),
        task=_task(data.task if data else Classification.name),
        classes=_one_line(data.classes if data else ()),
        confusion=confusion and replace(confusion, classes=_one_line(confusion.classes)),
        class_scores=class_scores
        and replace(class_scores, classes=_one_line(class_scores.classes)),
        calibrations=read_calibrations(run.path),
        measured=read_exit_measurements(run.path),
        pictures=sorted((run.path / PICTURES).glob("*.png")),
        mistakes=read_mistakes(run.path),
    )


def _task(name: str) -> type[Task]:
    if name not in TASKS:
        raise ArtifactError(
            f"{DATA_FILE} names the task '{name}', which this version does not know"
        )
    return TASKS[name]


def _one_line(names: Any) -> list[str]:
    return [" ".join(name.split()) for name in names]
