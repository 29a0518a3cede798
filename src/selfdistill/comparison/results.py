"""What a study found: every score, and each row beside the baseline."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..core import ConfigError, nearest
from ..functional.statistics import (
    Difference,
    Interval,
    mean_std,
    paired,
)
from ..records.exit_scores import ExitScore
from .grid import Study

LAST = "student"
SPLITS = ("val", "test")


class RunOutcome(NamedTuple):
    """What came of one run.

    Attributes:
        row, seed: its place in the grid.
        exits: its predictors; none if it has not ended or has failed.
        failure: why it failed, a sentence, else "".
        code: its exit code, 0 unless it failed.
    """

    row: str
    seed: int
    exits: list[ExitScore]
    failure: str = ""
    code: int = 0

    def score(self, predictor: str, split: str) -> float | None:
        """The score of a predictor, None if there is none."""
        for exit_ in self.exits:
            if exit_.predictor == predictor:
                return exit_.val_score if split == "val" else exit_.test_score
        return None


class RowResult(NamedTuple):
    """One predictor of one row over its seeds; scores are fractions.

    Attributes:
        row, predictor, split: what was judged on which images.
        scores: by seed, in the primary metric of the task.
        mean, std: of the scores; std is None of a single one.
        difference: minus the baseline's student, paired by seed; None for that itself, and without
            a seed that both have.
    """

    row: str
    predictor: str
    split: str
    scores: dict[int, float]
    mean: float
    std: float | None
    difference: Difference | None


def results(study: Study, outcomes: Iterable[RunOutcome]) -> list[RowResult]:
    """A result for each row, split and predictor that was judged, in the study's order."""
    outcomes, found = list(outcomes), []
    for row in study.rows:
        own = [outcome for outcome in outcomes if outcome.row == row]
        predictors = dict.fromkeys(e.predictor for outcome in own for e in outcome.exits)
        for split in SPLITS:
            base = _scores(outcomes, study.baseline, LAST, split)
            for predictor in predictors:
                if scores := _scores(outcomes, row, predictor, split):
                    itself = (row, predictor) == (study.baseline, LAST)
                    other = None if itself else _difference(scores, base)
                    found.append(
                        RowResult(
                            row, predictor, split, scores, *mean_std([*scores.values()]), other
                        )
                    )
    return found


def _scores(
    outcomes: Iterable[RunOutcome], row: str, predictor: str, split: str
) -> dict[int, float]:
    """{seed: score} of one predictor of one row."""
    scores = {o.seed: o.score(predictor, split) for o in outcomes if o.row == row}
    return {seed: score for seed, score in sorted(scores.items()) if score is not None}


def _difference(scores: dict[int, float], base: dict[int, float]) -> Difference | None:
    seeds = [seed for seed in scores if seed in base]
    pairs = [scores[s] for s in seeds], [base[s] for s in seeds]
    return paired(*pairs) if seeds else None


def judged_split(found: Iterable[RowResult]) -> str:
    """The images that count: test if there are any, else validation."""
    return "test" if any(result.split == "test" for result in found) else "val"


def headlines(study: Study, found: Sequence[RowResult]) -> list[RowResult]:
    """The results that the comparison is about: of each row the study's exit, where it has one.

    The baseline is its student, whatever the exit.

    Raises:
        ConfigError: there are rows beside the baseline, and none has such a predictor.
    """
    split = judged_split(found)
    chosen = [
        result
        for result in found
        if result.split == split
        and result.predictor == (LAST if result.row == study.baseline else study.exit)
    ]
    others = dict.fromkeys(r.predictor for r in found if r.row != study.baseline)
    if others and study.exit not in others:
        raise ConfigError(f"no row has a predictor '{study.exit}'{nearest(study.exit, others)}")
    return chosen


def points(share: float) -> str:
    """A difference of scores in percentage points, with its sign: +1.25."""
    return f"{100 * share:+.2f}".replace("-", "−")


def between(interval: Interval) -> str:
    """An interval of differences in points: −0.36 … +0.55."""
    return f"{points(interval.low)} … {points(interval.high)}"


def sentence(result: RowResult, baseline: str) -> str:
    """What is to be said of a row's difference to the baseline, plainly."""
    difference = result.difference
    if difference is None:
        return f"{result.row} has no seed in common with {baseline}."
    said = f"{result.row} minus {baseline}: {points(difference.mean)} points"
    if difference.t and difference.bootstrap:
        said += f" (t {between(difference.t)}, bootstrap {between(difference.bootstrap)})"
    return f"{said}, {difference.verdict}."


def results_csv(study: Study, outcomes: Iterable[RunOutcome]) -> str:
    """A line for each row, seed, predictor and split; the last column is called by the metric."""
    lines = [
        (o.row, o.seed, exit_.predictor, split, score)
        for o in sorted(outcomes, key=lambda o: (list(study.rows).index(o.row), o.seed))
        for exit_ in o.exits
        for split in SPLITS
        if (score := o.score(exit_.predictor, split)) is not None
    ]
    return _csv(("row", "seed", "predictor", "split", study.metric), lines)


_SUMMARY = ["row", "predictor", "split", "n", "mean", "std", "difference", "pairs"]
_SUMMARY += ["t_low", "t_high", "bootstrap_low", "bootstrap_high", "verdict"]


def summary_csv(found: Iterable[RowResult]) -> str:
    """A line for each result; `difference` is to the baseline's student."""
    lines = []
    for r in found:
        line: list[Any] = [r.row, r.predictor, r.split, len(r.scores), r.mean, r.std]
        if d := r.difference:
            line += [d.mean, d.n, *(d.t or ("", "")), *(d.bootstrap or ("", "")), d.verdict]
        lines.append(line + [""] * (len(_SUMMARY) - len(line)))
    return _csv(_SUMMARY, lines)


def _csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_plain(value) for value in line] for line in lines)
    return text.getvalue()


def _plain(value: Any) -> Any:
    """Six digits of a fraction: more than any number of images can tell apart."""
    if isinstance(value, float):
        return round(value, 6)
    return "" if value is None else value
