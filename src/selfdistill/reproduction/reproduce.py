"""Reproduction of a row: its runs, and their scores next to the published ones."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..core import ConfigError, check_kind
from ..engine.callback import Callback
from ..engine.run_directory import RunDirectory
from ..recipe.build_run import load_data
from ..recipe.published import FOLDER
from ..recipe.schema import Recipe
from ..records.csv_text import csv_text
from ..records.exit_scores import FILE as EXITS_FILE
from ..records.exit_scores import ExitScore
from ..runs.train import load_or_train_exits
from .gap import ReportedGap, measured_value, reported_gap
from .ledger import find_row
from .paper_row import ROOT, PaperRow
from .reported_value import ReportedValue

RESULT_COLUMNS = ("row", "predictor", "n", "mean", "std", "epochs", "machine", "commit")


@dataclass(frozen=True)
class PlannedRun:
    """A run that a row needs: the row that it belongs to, its recipe, and its directory."""

    row: PaperRow
    recipe: Recipe
    run_dir: Path

    @property
    def finished(self) -> bool:
        """Whether it is trained already."""
        return (self.run_dir / "exits.csv").exists()


@dataclass(frozen=True)
class ReproducedScore:
    """Scores of one predictor of a row, in percent.

    Attributes:
        predictor: its name; `average` is the mean of networks that train together.
        published: the paper's score, or None.
        last: ours at the last epoch, on test images.
        gap: of `last` to `published`, or None.
        best: ours at the best epoch, on the validation images that it was chosen by, or None.
    """

    predictor: str
    published: ReportedValue | None
    last: ReportedValue
    gap: ReportedGap | None
    best: ReportedValue | None


@dataclass(frozen=True)
class Reproduction:
    """A row with its reproduced scores, and the path of the table that holds them."""

    row: PaperRow
    scores: list[ReproducedScore]
    table: Path


class ReproductionCallback:
    """Events of a reproduction; a subclass overrides those it needs."""

    def on_start(self, row: PaperRow, runs: list[PlannedRun]) -> None:
        """Before the first run."""

    def on_run_start(self, run: PlannedRun) -> Callback | None:
        """Before a run is trained, or read if it is finished; returns a callback for training."""

    def on_run_end(self, run: PlannedRun) -> None:
        """After a run has finished."""


def reproduce(
    row: str | PaperRow,
    seeds: int = 3,
    *,
    out: Path = ROOT,
    callback: ReproductionCallback | None = None,
    **changes: Any,
) -> Reproduction:
    """Train the runs of a row, its teacher's first, and compare them with the published scores.

    Runs that are finished are read, runs that were started are resumed.

    Args:
        row: a row or its name, SYSTEM/TABLE/NETWORK/ROW.
        seeds: number of runs; their seeds are 0, 1, …
        out: directory of all runs.
        callback: is told the progress.
        changes: keys of the recipes that differ from the rows', such as `val` or `data`.

    Raises:
        ConfigError: an unknown row, one that cannot be trained here, or no seed.
    """
    row = find_row(row) if isinstance(row, str) else row
    callback = callback or ReproductionCallback()
    wanted = "an object of a ReproductionCallback's class"
    check_kind("callback", callback, ReproductionCallback, wanted)
    runs = plan_runs(row, seeds, out, **changes)
    _check_test_images(runs)
    callback.on_start(row, runs)
    exits: dict[Path, list[ExitScore]] = {}
    for run in runs:
        training_callback = callback.on_run_start(run)
        exits[run.run_dir] = load_or_train_exits(
            run.recipe, run.run_dir, callback=training_callback
        )
        callback.on_run_end(run)
    row_runs = runs[-seeds:]  # without the teacher's
    scores = reproduced_scores(row, {run.run_dir: exits[run.run_dir] for run in row_runs})
    return Reproduction(row, scores, write_result(row, scores, row_runs))


def _check_test_images(runs: Sequence[PlannedRun]) -> None:
    """Raises `ConfigError` if a run is yet to be trained and its data hold no test images."""
    waiting = [run for run in runs if not (run.run_dir / EXITS_FILE).exists()]
    if waiting and load_data(waiting[-1].recipe).test is None:
        raise ConfigError(
            f"a row is scored on test images, and {waiting[-1].recipe.data} has none; give data "
            "with a part 'test'"
        )


def plan_runs(row: PaperRow, seeds: int, root: Path = ROOT, **changes: Any) -> list[PlannedRun]:
    """All runs of a row, its teacher's first; see `reproduce`."""
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds} makes no run; give 1 or more")
    teacher_runs = plan_runs(row.teacher, 1, root, **changes) if row.teacher else []
    return teacher_runs + [
        PlannedRun(row, row.recipe(seed, root, **changes), row.run_dir(seed, root, **changes))
        for seed in range(seeds)
    ]


def reproduced_scores(row: PaperRow, runs: Mapping[Path, list[ExitScore]]) -> list[ReproducedScore]:
    """Scores of a row's runs, by predictor.

    Args:
        row: the row that was trained.
        runs: {directory: exits} of its runs.
    """
    last = [_with_average(_last_epoch(row, *run)) for run in runs.items()]
    best = [_with_average(best_epoch(run_dir, row.score)) for run_dir in runs]
    scores = []
    for name in last[0]:
        published, reproduced = row.published.get(name), _mean_score(name, last)
        assert reproduced is not None, "every run is evaluated on test images"
        gap = reported_gap(reproduced, published) if published else None
        scores.append(ReproducedScore(name, published, reproduced, gap, _mean_score(name, best)))
    return [score for score in scores if score.published or score.predictor != "average"]


def _mean_score(name: str, runs: Sequence[Mapping[str, float | None]]) -> ReportedValue | None:
    """Mean over the runs in percent, None if a run has no such score."""
    scores = [100 * score for run in runs if (score := run.get(name)) is not None]
    return measured_value(scores) if scores and len(scores) == len(runs) else None


def _last_epoch(row: PaperRow, run_dir: Path, exits: list[ExitScore]) -> dict[str, float | None]:
    """{predictor: score on the test images} of a finished run."""
    if exits[0].metric == row.score:
        return {exit_.predictor: exit_.test_score for exit_ in exits}
    final = next(e for e in RunDirectory(run_dir).metrics() if e.get("kind") == "final")
    return {exit_.predictor: final["test"][exit_.predictor][row.score] for exit_ in exits}


def _with_average(scores: Mapping[str, float | None]) -> dict[str, float | None]:
    """Scores with the mean of the networks that trained together, where there are several."""
    networks = [v for k, v in scores.items() if k == "student" or k.startswith("peer")]
    known = [score for score in networks if score is not None]
    complete = len(known) == len(networks) > 1
    return {**scores, **({"average": fmean(known)} if complete else {})}


def best_epoch(run_dir: Path, score: str = "accuracy") -> dict[str, float | None]:
    """Validation score of every predictor in the epoch whose student was the best."""
    epochs = [
        entry["val"]
        for entry in RunDirectory(run_dir).metrics()
        if entry.get("kind") == "epoch" and "val" in entry
    ]
    if not epochs:
        return {}
    best = max(epochs, key=lambda scores: scores["student"][score])
    return {name: scores[score] for name, scores in best.items()}


def write_result(
    row: PaperRow, scores: Iterable[ReproducedScore], runs: Sequence[PlannedRun]
) -> Path:
    """Write `result.csv` next to a row's runs, in the columns of `published/ours.csv`."""
    run_dir, epochs = runs[-1].run_dir, runs[-1].recipe.epochs
    environment = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))
    machine = ", ".join(environment["gpus"]) or environment["processor"]
    lines = [
        (
            *(row.run_name, score.predictor, score.last.n, f"{score.last.mean:.3f}"),
            "" if score.last.std is None else f"{score.last.std:.3f}",
            *(epochs, machine, environment["commit"]),
        )
        for score in scores
    ]
    return RunDirectory(run_dir.parent).write("result.csv", csv_text(RESULT_COLUMNS, lines))


def measured_values(row: PaperRow) -> dict[str, ReportedValue]:
    """Scores that this project measured of a row as published: {predictor: score}."""
    with (FOLDER / "ours.csv").open(encoding="utf-8", newline="") as stream:
        return {
            line["predictor"]: ReportedValue(
                float(line["mean"]), float(line["std"]) if line["std"] else None, int(line["n"])
            )
            for line in csv.DictReader(stream)
            if line["row"] == row.run_name
        }
