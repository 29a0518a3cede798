"""The tables of a run's page."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core import STUDENT
from ..functional.pareto import pareto_front
from ..functional.statistics import PairedDifference, Significance
from ..records import BASELINE, SPLITS, split_name
from ..records.class_tables import ClassScores, ConfusionMatrix
from ..records.exit_measurements import ExitMeasurements
from ..records.exit_scores import ExitScore
from ..tasks.metric_names import shown_metric
from .charts.style import MUTED, css_variable, stage_color
from .elements import Cell, Row, Table
from .formatting import (
    count,
    exit_number,
    file_size,
    milliseconds,
    percent,
    share,
    shown,
    thousands,
)
from .run_data import RunData

MOST_PAIRS = 10
_ONE_COLUMN = 12  # classes of a table that is not broken in two


def exits_table(run: RunData) -> Table:
    """Score and cost of every predictor, and the cost's share of the student's."""
    rows, full, several = run.exits, run.student, len(run.exits) > 1
    splits = [s for s in reversed(SPLITS) if any(row.score(s) is not None for row in rows)]
    metrics = _further_metrics(run)
    heads = ["", *(f"{split_name(split)} {shown_metric(run.metric)}" for split in splits), *metrics]
    of_full = ["of the student's"] * (several and full is not None)
    heads += ["parameters", *of_full, "multiply-adds", *of_full, *["Pareto front"] * several]
    scores = [row.score(run.choosing_split) for row in rows]
    fronts = pareto_front([row.macs for row in rows], scores)
    body = []
    for row, front in zip(rows, fronts, strict=True):
        cells: list[str | Cell] = [shown(row.predictor)]
        cells += [_score(row.score(split)) for split in splits]
        cells += [_score(values.get(row.predictor)) for values in metrics.values()]
        cells += _costs(row, full if several else None)
        cells += ["✓" if front else ""] * several
        body.append(Row(cells, _color(row.predictor), strong=several and row.predictor == STUDENT))
    return Table(heads, body)


def _further_metrics(run: RunData) -> dict[str, dict[str, float]]:
    """Other final metrics of each predictor: {"test top5": {"exit1": …}, …}."""
    split = "test" if "test" in run.final else "val"
    evaluated: Mapping[str, Mapping[str, float]] = run.final.get(split) or {}
    names = dict.fromkeys(m for scores in evaluated.values() for m in scores if m != run.metric)
    columns = {
        f"{split_name(split)} {shown_metric(m)}": {p: s[m] for p, s in evaluated.items() if m in s}
        for m in names
        if all(run.metric in scores for scores in evaluated.values())
    }
    if run.calibration:
        errors = {name: table.error for name, table in run.calibration.items()}
        columns[f"{split_name(run.split)} calibration error"] = errors
    return columns


def _costs(row: ExitScore, full: ExitScore | None) -> list[Cell]:
    cells = []
    for cost in ("parameters", "macs"):
        value = getattr(row, cost)
        cells.append(Cell(count(value), title=str(value)))
        if full:
            part = value / max(getattr(full, cost), 1)
            cells.append(Cell(share(part), bar=min(part, 1), color=_color(row.predictor)))
    return cells


def _score(value: float | None) -> str:
    return "–" if value is None else percent(value, 2)


def _color(predictor: str) -> str:
    number = exit_number(predictor)
    return css_variable(MUTED if predictor == BASELINE else stage_color(number))


def measured_table(measured: ExitMeasurements) -> Table:
    """Size and times of every predictor, and its difference from the baseline."""
    rows = measured.all_rows
    splits = [split for split in reversed(SPLITS) if any(split in row.against for row in rows)]
    passes = timed_passes(measured)
    heads = ["", "file", *(f"{images_of(batch)}, {device}" for device, batch in passes)]
    heads += [f"{split_name(split)} against the baseline" for split in splits]
    body = []
    for row in rows:
        cells = [shown(row.predictor), "–" if row.size is None else file_size(row.size)]
        times = [row.seconds.get(key) for key in passes]
        cells += ["–" if time is None else milliseconds(1000 * time) for time in times]
        cells += [_against(row.against.get(split)) for split in splits]
        body.append(Row(cells, _color(row.predictor)))
    return Table(heads, body)


def timed_passes(measured: ExitMeasurements) -> list[tuple[str, int]]:
    """The (device, batch) at which at least one predictor was timed."""
    return [key for key in measured.passes if any(key in row.seconds for row in measured.all_rows)]


def images_of(batch: int) -> str:
    """1 as "1 image", 32 as "32 images"."""
    return f"{batch} image{'s' * (batch > 1)}"


def _against(difference: PairedDifference | None) -> str:
    if difference is None:
        return "–"
    points = (difference.mean, *difference.interval)
    mean, low, high = (f"{100 * value:+.1f}".replace("-", "−") for value in points)
    within = difference.significance is Significance.INCONCLUSIVE
    verdict = "within noise" if within else "better" if difference.mean > 0 else "worse"
    return f"{mean} ({low} … {high}) {verdict}"


def classes_tables(scores: ClassScores) -> list[Table]:
    """Every class with its scores in percent and its counts; many classes in two tables."""
    heads = ["class", *map(shown_metric, scores.columns)]
    columns = [
        [_class_value(value, is_count=scores.is_count(name)) for value in values]
        for name, values in scores.columns.items()
    ]
    rows = [Row(cells) for cells in zip(scores.classes, *columns, strict=True)]
    half = -(-len(rows) // 2) if len(rows) > _ONE_COLUMN else len(rows)
    return [Table(heads, part) for part in (rows[:half], rows[half:]) if part]


def _class_value(value: float | None, *, is_count: bool) -> str:
    if value is None:
        return "–"
    return thousands(int(value)) if is_count else percent(value)


def pairs_table(confusion: ConfusionMatrix, unit: str) -> Table | None:
    """The most frequent mistakes, None if there are none; `unit` is what was counted."""
    misses = confusion.counts * ~np.eye(len(confusion.classes), dtype=bool)
    rows = []
    for flat in np.argsort(-misses, axis=None, kind="stable")[:MOST_PAIRS]:
        true, predicted = np.unravel_index(flat, misses.shape)
        if times := int(misses[true, predicted]):
            names: list[Any] = [confusion.classes[true], confusion.classes[predicted]]
            part = share(times / max(int(confusion.counts[true].sum()), 1))
            rows.append(Row([*names, thousands(times), part]))
    heads = ["true class", "taken for", unit, "of the class"]
    return Table(heads, rows, text_columns=2) if rows else None
