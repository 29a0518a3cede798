"""The page `study.html` of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core import STUDENT
from ..core.machine import environment
from ..functional.statistics import MIN_PAIRS, Significance
from ..records import split_name
from ..reporting.charts.style import palette
from ..reporting.elements import Cell, Row, Table, two_columns
from ..reporting.formatting import percent, shown, titled
from ..reporting.rendering import render
from ..tasks.metric_names import shown_metric
from . import charts
from .grid import Study
from .results import (
    RowResult,
    RunOutcome,
    evaluated_split,
    format_interval,
    format_points,
    main_results,
)
from .verdict import study_verdict


@dataclass(frozen=True)
class StudyPageData:
    """All that the page shows.

    Attributes:
        name: of the study.
        study: its rows, seeds and recipes.
        outcomes: of every run.
        results: of every predictor.
        summary: of the predictors that are compared, the baseline first.
    """

    name: str
    study: Study
    outcomes: Sequence[RunOutcome]
    results: Sequence[RowResult]
    summary: Sequence[RowResult]

    @property
    def split(self) -> str:
        """The split that the scores are of."""
        return evaluated_split(self.results)

    @property
    def others(self) -> list[RowResult]:
        """The rows that are compared with the baseline."""
        return [result for result in self.summary if result.row != self.study.baseline]

    @property
    def compared(self) -> list[tuple[str, str, str]]:
        """(row, its difference in format_points, verdict) of each row that has one."""
        return [
            (r.row, format_points(d.mean), str(d.significance))
            for r in self.others
            if (d := r.difference)
        ]

    @property
    def verdict(self) -> str:
        """Which row helps, by how much and at what cost."""
        return study_verdict(self.study, self.summary, self.outcomes)

    @property
    def num_verdicts(self) -> int:
        """Number of comparisons with enough seeds for a verdict."""
        return sum(bool(r.difference and r.difference.n >= MIN_PAIRS) for r in self.others)


def page(
    name: str, study: Study, outcomes: Sequence[RunOutcome], results: Sequence[RowResult]
) -> str:
    """The whole document; links lead to runs/ROW/sSEED/report.html beside it.

    Raises:
        ConfigError: no row has the predictor that is to be compared.
    """
    data = StudyPageData(name, study, outcomes, results, main_results(study, results))
    metric, differences = shown_metric(study.metric), None
    if data.compared:
        differences = charts.differences(data.summary, "difference")
    return render(
        "comparison.html.j2",
        name=name,
        data=data,
        study=study,
        colors={theme: shades[1:] for theme, shades in palette(2).items()},  # one that stands out
        metric=metric,
        images=split_name(data.split),
        comparison=_comparison_table(data),
        scores=charts.scores(data.summary, "scores", titled(metric)) if data.summary else None,
        differences=differences,
        exits=_exits_table(data),
        runs=_runs_table(data),
        recipe=_recipe_tables(study),
        environment=environment(),
    )


def _comparison_table(data: StudyPageData) -> Table:
    base, metric = data.study.baseline, shown_metric(data.study.metric)
    heads = ["", f"{split_name(data.split)} {metric}", f"minus {base}", "verdict"]
    heads += ["95 % t interval", "bootstrap", "seeds"]
    results = {result.row: result for result in data.summary}
    missing = ["–"] * (len(heads) - 2) + ["0"]
    rows = [
        Row(_cells(results[row], base) if row in results else [row, *missing])
        for row in data.study.rows
    ]
    return Table(heads, rows)


def _cells(result: RowResult, baseline: str) -> list[str | Cell]:
    difference, seeds = result.difference, str(len(result.scores))
    if difference is None:
        verdict = "baseline" if result.row == baseline else "–"
        return [result.row, mean_std(result), "–", verdict, "–", "–", seeds]
    beyond = difference.significance is Significance.SIGNIFICANT
    enough = difference.n >= MIN_PAIRS
    intervals = (difference.t, difference.bootstrap)
    return [
        result.row,
        mean_std(result),
        format_points(difference.mean),
        Cell(str(difference.significance), strong=beyond),
        *(format_interval(interval) if interval and enough else "–" for interval in intervals),
        seeds,
    ]


def mean_std(result: RowResult) -> str:
    """Mean and standard deviation over the seeds, in percent."""
    spread = "" if result.std is None else f" ± {100 * result.std:.2f}"
    return f"{100 * result.mean:.2f}{spread} %"


def _exits_table(data: StudyPageData) -> Table | None:
    """Every predictor of every row, the full network last; None if there is nothing else."""
    evaluated = [result for result in data.results if result.split == data.split]
    names = sorted(dict.fromkeys(r.predictor for r in evaluated), key=lambda name: name == STUDENT)
    if len(names) < 2:
        return None
    cells = {(r.row, r.predictor): mean_std(r) for r in evaluated}
    rows = [Row([row, *(cells.get((row, n), "–") for n in names)]) for row in data.study.rows]
    return Table(["", *map(shown, names)], rows)


def _runs_table(data: StudyPageData) -> Table:
    outcomes = {(outcome.row, outcome.seed): outcome for outcome in data.outcomes}
    seeds = data.study.seeds
    rows = [
        Row([row, *(_run_cell(outcomes[row, seed], data.split) for seed in seeds)])
        for row in data.study.rows
    ]
    return Table(["", *(f"seed {seed}" for seed in seeds)], rows)


def _run_cell(outcome: RunOutcome, split: str) -> str | Cell:
    if outcome.failure:
        return "failed"
    score = outcome.score(STUDENT, split)
    if score is None:
        return "–"
    return Cell(percent(score, 2), link=f"runs/{outcome.row}/s{outcome.seed}/report.html")


def _recipe_tables(study: Study) -> list[tuple[str, dict[str, Any]]]:
    tables = two_columns(study.shared, "All rows")
    for name, row in study.to_dict()["rows"].items():
        keys = {key: value for key, value in row.items() if key != "options"}
        tables.append((f"Row {name}", {**keys, **row["options"]}))
    return tables
