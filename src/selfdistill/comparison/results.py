"""Results of a study: scores of all runs, and the difference of each row to the baseline."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..core import STUDENT, ConfigError, nearest
from ..functional.statistics import (
    MIN_PAIRS,
    Interval,
    MeanDifference,
    mean_difference,
    mean_std,
)
from ..records import SPLITS
from ..records.csv_text import csv_text
from ..records.exit_scores import ExitScore
from .grid import Study


@dataclass(frozen=True)
class RunOutcome:
    """Outcome of one run.

    Attributes:
        row, seed: cell of the grid.
        exits: scores of its predictors; empty if it has not ended or has failed.
        failure: why it failed, a sentence, else "".
        code: exit code, 0 unless it failed.
        throughput: training images per second, None where it is not recorded.
    """

    row: str
    seed: int
    exits: list[ExitScore]
    failure: str = ""
    code: int = 0
    throughput: float | None = None

    def score(self, predictor: str, split: str) -> float | None:
        """Score of a predictor, None if there is none."""
        for exit_ in self.exits:
            if exit_.predictor == predictor:
                return exit_.val_score if split == "val" else exit_.test_score
        return None


@dataclass(frozen=True)
class RowResult:
    """Scores of one predictor of one row over its seeds, as fractions.

    Attributes:
        row, predictor, split: the predictor and the images that it was evaluated on.
        scores: {seed: score} in the primary metric of the task.
        mean, std: of the scores; std is None of a single one.
        difference: to the baseline's student, paired by seed; None for that itself, and without a
            seed that both have.
    """

    row: str
    predictor: str
    split: str
    scores: dict[int, float]
    mean: float
    std: float | None
    difference: MeanDifference | None


def row_results(study: Study, outcomes: Iterable[RunOutcome]) -> list[RowResult]:
    """Result of each row, split and predictor that was evaluated, in the study's order."""
    outcomes = list(outcomes)
    cells = [
        (row, split, predictor)
        for row in study.rows
        for split in SPLITS
        for predictor in dict.fromkeys(
            e.predictor for outcome in outcomes if outcome.row == row for e in outcome.exits
        )
    ]
    results = []
    for row, split, predictor in cells:
        if not (scores := _scores(outcomes, row, predictor, split)):
            continue
        difference = None
        if (row, predictor) != (study.baseline, STUDENT):
            difference = _difference(scores, _scores(outcomes, study.baseline, STUDENT, split))
        mean, std = mean_std([*scores.values()])
        results.append(RowResult(row, predictor, split, scores, mean, std, difference))
    return results


def _scores(
    outcomes: Iterable[RunOutcome], row: str, predictor: str, split: str
) -> dict[int, float]:
    """{seed: score} of one predictor of one row."""
    scores = {o.seed: o.score(predictor, split) for o in outcomes if o.row == row}
    return {seed: score for seed, score in sorted(scores.items()) if score is not None}


def _difference(scores: dict[int, float], baseline: dict[int, float]) -> MeanDifference | None:
    seeds = [seed for seed in scores if seed in baseline]
    if not seeds:
        return None
    return mean_difference([scores[s] for s in seeds], [baseline[s] for s in seeds])


def evaluated_split(results: Iterable[RowResult]) -> str:
    """Split that is reported: test if there are test scores, else validation."""
    return "test" if any(result.split == "test" for result in results) else "val"


def main_results(study: Study, results: Sequence[RowResult]) -> list[RowResult]:
    """Result of the study's exit in each row that has it, and of the baseline's student.

    Raises:
        ConfigError: all rows have results, and none but the baseline has such a predictor.
    """
    split = evaluated_split(results)
    predictors = dict.fromkeys(r.predictor for r in results if r.row != study.baseline)
    complete = {result.row for result in results}.issuperset(study.rows)
    if complete and predictors and study.exit not in predictors:
        raise ConfigError(
            f"no row has a predictor '{study.exit}'{nearest(study.exit, predictors)}; all runs are "
            "kept, and --resume with another --exit compares them"
        )
    return [
        result
        for result in results
        if result.split == split
        and result.predictor == (STUDENT if result.row == study.baseline else study.exit)
    ]


def format_points(difference: float) -> str:
    """Difference of scores in percentage points, with its sign: +1.25."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def format_interval(interval: Interval) -> str:
    """Interval of differences in percentage points: −0.36 … +0.55."""
    return f"{format_points(interval.low)} … {format_points(interval.high)}"


def describe_difference(result: RowResult, baseline: str) -> str:
    """Sentence about the difference of a row to the baseline, with its intervals if they tell."""
    difference = result.difference
    if difference is None:
        return f"{result.row} has no seed in common with {baseline}."
    text = f"{result.row} minus {baseline}: {format_points(difference.mean)} points"
    if difference.t and difference.bootstrap and difference.n >= MIN_PAIRS:
        t, bootstrap = format_interval(difference.t), format_interval(difference.bootstrap)
        text += f" (t {t}, bootstrap {bootstrap})"
    return f"{text}, {difference.significance}."


def results_csv(study: Study, outcomes: Iterable[RunOutcome]) -> str:
    """A line for each row, seed, predictor and split; the last column is named by the metric."""
    lines = [
        [o.row, o.seed, exit_.predictor, split, round(score, 6)]
        for o in sorted(outcomes, key=lambda o: (list(study.rows).index(o.row), o.seed))
        for exit_ in o.exits
        for split in SPLITS
        if (score := o.score(exit_.predictor, split)) is not None
    ]
    return csv_text(["row", "seed", "predictor", "split", study.metric], lines)


def _bound(result: RowResult, interval: str, bound: str) -> float | None:
    """Low or high bound of the t or the bootstrap interval."""
    return getattr(getattr(result.difference, interval, None), bound, None)


_SUMMARY: dict[str, Callable[[RowResult], Any]] = {
    "row": lambda r: r.row,
    "predictor": lambda r: r.predictor,
    "split": lambda r: r.split,
    "n": lambda r: len(r.scores),
    "mean": lambda r: r.mean,
    "std": lambda r: r.std,
    "difference": lambda r: r.difference and r.difference.mean,
    "pairs": lambda r: r.difference and r.difference.n,
    "t_low": lambda r: _bound(r, "t", "low"),
    "t_high": lambda r: _bound(r, "t", "high"),
    "bootstrap_low": lambda r: _bound(r, "bootstrap", "low"),
    "bootstrap_high": lambda r: _bound(r, "bootstrap", "high"),
    "significance": lambda r: r.difference and r.difference.significance.value,
}


def summary_csv(results: Iterable[RowResult]) -> str:
    """A line for each result; `difference` is to the baseline's student."""
    lines = [[column(result) for column in _SUMMARY.values()] for result in results]
    # six digits of a fraction resolve more than any number of images can
    rounded = ([round(x, 6) if isinstance(x, float) else x for x in line] for line in lines)
    return csv_text(list(_SUMMARY), rounded)
