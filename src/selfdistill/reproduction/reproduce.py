"""A paper's row made again: which runs it takes, and what they say beside the published figures."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from ..core import write_atomically
from ..engine.run_directory import RunDirectory
from ..recipe.schema import Recipe
from ..records.exit_scores import ExitScore
from .gap import ReportedGap, measured_value, reported_gap
from .ledger import FOLDER
from .paper_row import ROOT, PaperRow
from .reported_value import ReportedValue

OURS = ("row", "predictor", "n", "mean", "std", "epochs", "machine", "commit")


class PlannedRun(NamedTuple):
    """A run that a row takes: whose it is, its recipe, and its directory."""

    row: PaperRow
    recipe: Recipe
    place: Path


def plan(row: PaperRow, seeds: int, root: Path = ROOT, **changes: Any) -> list[PlannedRun]:
    """All runs of a row, its teacher's first.

    Args:
        row: what to make again.
        seeds: how many runs; their seeds are 0, 1, …
        root: where runs are kept.
        changes: keys of the recipes that are to be others than the rows'.

    Raises:
        ConfigError: the row cannot be run here.
    """
    first = plan(row.teacher, 1, root, **changes) if row.teacher else []
    return first + [
        PlannedRun(row, row.recipe(seed, root, **changes), row.place(seed, root, **changes))
        for seed in range(seeds)
    ]


class ReproducedScore(NamedTuple):
    """One predictor of a row.

    Attributes:
        predictor: its name; `average` is the mean of networks that train together.
        published: the paper's figure, or None.
        last: ours at the last epoch, on test images.
        gap: ours minus theirs, or None.
        best: ours at the best epoch, on the held-out images that it was chosen by, or None.
    """

    predictor: str
    published: ReportedValue | None
    last: ReportedValue
    gap: ReportedGap | None
    best: ReportedValue | None


def outcomes(row: PaperRow, runs: Mapping[Path, list[ExitScore]]) -> list[ReproducedScore]:
    """What a row's runs came to, by predictor.

    Args:
        row: what was made again.
        runs: {directory: exits} of its runs.
    """
    last = [_with_average(_last_epoch(row, *run)) for run in runs.items()]
    best = [_with_average(best_epoch(place, row.score)) for place in runs]
    found = []
    for name in last[0]:
        published = row.published.get(name)
        ours = _figure(name, last)
        assert ours is not None, "every run is judged on test images"
        compared = reported_gap(ours, published) if published else None
        found.append(ReproducedScore(name, published, ours, compared, _figure(name, best)))
    return [each for each in found if each.published or each.predictor != "average"]


def _figure(name: str, runs: Sequence[Mapping[str, float | None]]) -> ReportedValue | None:
    values = [run.get(name) for run in runs]
    known = [100 * value for value in values if value is not None]
    return measured_value(known) if known and len(known) == len(values) else None


def _last_epoch(row: PaperRow, place: Path, exits: list[ExitScore]) -> dict[str, float | None]:
    """{predictor: score on the test images} of a finished run."""
    if exits[0].metric == row.score:
        return {each.predictor: each.test_score for each in exits}
    final = next(e for e in RunDirectory(place).metrics() if e.get("kind") == "final")
    return {each.predictor: final["test"][each.predictor][row.score] for each in exits}


def _with_average(scores: Mapping[str, float | None]) -> dict[str, float | None]:
    """With the mean of the networks that trained together, where there are several."""
    together = [v for k, v in scores.items() if k == "student" or k.startswith("peer")]
    known = [value for value in together if value is not None]
    whole = len(known) == len(together) > 1
    return {**scores, **({"average": fmean(known)} if whole else {})}


def best_epoch(place: Path, score: str = "accuracy") -> dict[str, float | None]:
    """What every predictor scored in the epoch whose student was best on held-out images."""
    epochs = [
        entry["val"]
        for entry in RunDirectory(place).metrics()
        if entry.get("kind") == "epoch" and "val" in entry
    ]
    if not epochs:
        return {}
    best = max(epochs, key=lambda scores: scores["student"][score])
    return {name: scores[score] for name, scores in best.items()}


def write_result(
    row: PaperRow, found: Iterable[ReproducedScore], runs: Sequence[PlannedRun]
) -> Path:
    """Write `result.csv` beside a row's runs, in the columns of `published/ours.csv`."""
    place = runs[-1].place
    about = json.loads((place / "environment.json").read_text(encoding="utf-8"))
    machine = ", ".join(about["gpus"]) or about["processor"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(OURS)
    for each in found:
        spread = "" if each.last.std is None else f"{each.last.std:.3f}"
        figures = (each.last.n, f"{each.last.mean:.3f}", spread)
        shared = (runs[-1].recipe.epochs, machine, about["commit"] or "")
        writer.writerow((row.run, each.predictor, *figures, *shared))
    return write_atomically(place.parent / "result.csv", text.getvalue())


def ours(row: PaperRow) -> dict[str, ReportedValue]:
    """What this project measured of a row as it was published: {predictor: figure}."""
    with (FOLDER / "ours.csv").open(encoding="utf-8", newline="") as stream:
        return {
            line["predictor"]: ReportedValue(
                float(line["mean"]), float(line["std"]) if line["std"] else None, int(line["n"])
            )
            for line in csv.DictReader(stream)
            if line["row"] == row.run
        }
