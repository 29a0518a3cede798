"""The first sentence about a study: what helps, by how much, and at what cost."""

from collections.abc import Sequence
from statistics import median

from ..core import STUDENT
from ..functional.statistics import CONFIDENCE, MIN_PAIRS, MeanDifference, Significance, holm
from ..records import split_name
from ..reporting.formatting import shown
from ..tasks.metric_names import shown_metric
from .grid import Study
from .results import RowResult, RunOutcome, evaluated_split, format_interval, format_points

_SAME_MACS = 0.005  # a fraction that no user would call another cost
_STEADY = 1.25  # how far seeds may differ in the time that a row takes over the baseline
_NUMBERS = {1: "One seed", 2: "Two seeds"}


def study_verdict(
    study: Study, summary: Sequence[RowResult], outcomes: Sequence[RunOutcome]
) -> str:
    """Which row helps over the baseline, by how much, beyond noise or not, and at what cost.

    Of several rows one that is beyond noise must be so among all that were compared, by Holm's
    correction of the t test. The best of them is then named, whose gain is optimistic.

    Args:
        summary: main result of each row, from `main_results`.
        outcomes: of every run.
    """
    differences = {r.row: r.difference for r in summary if r.row != study.baseline and r.difference}
    if not differences:
        return f"Nothing can be said yet: no row has a seed in common with {study.baseline}."
    judged = {
        row: d for row, d in differences.items() if d.significance is not Significance.UNDERPOWERED
    }
    row, opening = _answer(judged) if judged else _unanswered(differences)
    difference = differences[row]
    metric = f"{split_name(evaluated_split(summary))} {shown_metric(study.metric)}"
    place = "" if study.exit == STUDENT else f" at {shown(study.exit)}"
    sentence = (
        f"{opening}: {format_points(difference.mean)} points of {metric}{place} over "
        f"{study.baseline} ({_evidence(difference)}), {_cost(study, row, outcomes)}."
    )
    claimed = difference.significance is Significance.SIGNIFICANT and difference.mean > 0
    return sentence + (_choice(row, len(judged)) if claimed and len(judged) > 1 else "")


def _answer(judged: dict[str, MeanDifference]) -> tuple[str, str]:
    """Row that the sentence is about, and its opening."""
    gains = {row: d for row, d in judged.items() if d.mean > 0}
    alone = {r: d for r, d in gains.items() if d.significance is Significance.SIGNIFICANT}
    certain = {row: d for row, d in alone.items() if _holds_among(judged)[row]}
    if certain:
        row = _best(certain)
        return row, f"{row} helps"
    if alone:
        row = _best(alone)
        return row, f"{row} may help, beyond noise by itself but not among {len(judged)} rows"
    row = _best(judged)
    if len(judged) > 1:
        return row, f"Nothing helps beyond noise; the best of {len(judged)} is {row}"
    harms = judged[row].significance is Significance.SIGNIFICANT
    return row, f"{row} harms" if harms else f"{row} does not help beyond noise"


def _unanswered(differences: dict[str, MeanDifference]) -> tuple[str, str]:
    """The same where there are too few seeds."""
    row = _best(differences)
    n = differences[row].n
    seeds = _NUMBERS.get(n, f"These {n} seeds")
    what = f"whether {row} helps" if len(differences) == 1 else "what helps"
    best = "" if len(differences) == 1 else f"; the best of {len(differences)} so far is {row}"
    return row, f"{seeds} cannot tell {what}{best}"


def _best(differences: dict[str, MeanDifference]) -> str:
    return max(differences, key=lambda row: differences[row].mean)


def _holds_among(judged: dict[str, MeanDifference]) -> dict[str, bool]:
    """Whether each difference is beyond noise among all of them."""
    adjusted = holm([1.0 if d.p_value is None else d.p_value for d in judged.values()])
    return {row: p < 1 - CONFIDENCE for row, p in zip(judged, adjusted, strict=True)}


def _evidence(difference: MeanDifference) -> str:
    """The t interval, where there is one, n, and the conclusion of both intervals."""
    seeds = f"{difference.n} seed{'s' * (difference.n > 1)}"
    if difference.t is None or difference.n < MIN_PAIRS:
        return f"{seeds}, no interval"
    interval = f"95 % interval {format_interval(difference.t)}"
    return f"{interval}, {seeds}, {difference.significance}"


def _cost(study: Study, row: str, outcomes: Sequence[RunOutcome]) -> str:
    """What a row costs in training, where it is recorded, and in inference, a phrase."""
    ratio = _time_ratio(study, row, outcomes)
    training = "" if ratio is None else f"at {ratio:.2f} times the training time per image, and "
    macs = _macs(outcomes, row, study.exit)
    base = _macs(outcomes, study.baseline, STUDENT)
    if not (macs and base):
        return f"{training}an inference cost that is not recorded"
    if abs(macs / base - 1) < _SAME_MACS:
        return f"{training or 'at '}the same multiply-adds in inference"
    return f"{training or 'at '}{100 * macs / base:.0f} % of the multiply-adds in inference"


def _time_ratio(study: Study, row: str, outcomes: Sequence[RunOutcome]) -> float | None:
    """Time per training image over the baseline's, the median over the seeds of both.

    None where the seeds disagree: something else computed on the machine, too.
    """
    rates = {(o.row, o.seed): o.throughput for o in outcomes if o.throughput}
    ratios = [
        rates[study.baseline, seed] / rates[row, seed]
        for seed in study.seeds
        if (study.baseline, seed) in rates and (row, seed) in rates
    ]
    agree = ratios and max(ratios) <= _STEADY * min(ratios)
    return median(ratios) if agree else None


def _macs(outcomes: Sequence[RunOutcome], row: str, predictor: str) -> int | None:
    """Multiply-adds of a predictor, from any run of its row."""
    return next(
        (e.macs for o in outcomes if o.row == row for e in o.exits if e.predictor == predictor),
        None,
    )


def _choice(row: str, num: int) -> str:
    """What is to be kept in mind where the best of several is named."""
    return (
        f" It is the best of {num}, judged by Holm's correction for so many; the best of several "
        f"looks better than it is, and only other seeds say what {row} is worth."
    )
