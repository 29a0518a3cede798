"""Which predictor of a run to take: one by its name, or the cheapest that is good enough."""

from collections.abc import Sequence

from ..core import ConfigError, nearest
from ..records.exit_scores import ExitScore
from ..tasks.metric_names import shown_metric

_POINT = 0.01 + 1e-9  # a hair of tolerance: .98 - .97 is more than .01 to a computer


def select_exit(
    rows: Sequence[ExitScore],
    wanted: str | int = "auto",
    *,
    min_accuracy: float | None = None,
    max_macs: float | None = None,
) -> ExitScore:
    """The predictor that is asked for.

    `auto` takes the cheapest exit that has the accuracy, or, under a limit of cost alone, the most
    accurate within it, and without either the cheapest within one point of the student. It judges
    by validation images, so that the test images stay a test, and by the primary metric of
    the task: mean IoU of a segmenter, mean average precision of a detector.

    Args:
        rows: of the run.
        wanted: ``"auto"``, the number of an exit, a predictor's name, or ``"final"``, the student.
        min_accuracy: least score on the validation images, a fraction.
        max_macs: multiply-adds of one image.

    Raises:
        ConfigError: there is no such exit, none that fulfils the limits, or nothing to judge by.
    """
    automatic = wanted == "auto"
    pool = _exits(rows) if automatic else [_named(rows, str(wanted))]
    if (automatic or min_accuracy is not None) and any(r.val_score is None for r in pool):
        raise ConfigError(
            "the run held out no validation images, and test images are not to choose by; name an "
            f"exit and no --min-accuracy ({', '.join(row.predictor for row in rows)})"
        )
    if automatic and min_accuracy is None and max_macs is None:
        return best_tradeoff(rows, "val")
    cheap = [row for row in pool if max_macs is None or row.macs <= max_macs]
    good = [row for row in cheap if min_accuracy is None or _val(row) >= min_accuracy]
    if not good:
        raise ConfigError(_missed(pool, cheap, min_accuracy, max_macs))
    if min_accuracy is None:
        return max(good, key=lambda row: (_val(row), -row.macs)) if automatic else good[0]
    return min(good, key=lambda row: row.macs)


def best_tradeoff(rows: Sequence[ExitScore], part: str) -> ExitScore:
    """The cheapest of the exits and the student that is within one point of the student.

    Args:
        rows: of a run, all judged on this part.
        part: whose score counts, "val" or "test".
    """
    rows = _exits(rows)
    score = {row.predictor: float(getattr(row, f"{part}_score")) for row in rows}
    close = [row for row in rows if score["student"] - score[row.predictor] <= _POINT]
    return min(close, key=lambda row: row.macs)


def _exits(rows: Sequence[ExitScore]) -> list[ExitScore]:
    """Without peers and what else is no part of the student."""
    return [row for row in rows if row.predictor.startswith(("exit", "student"))]


def _named(rows: Sequence[ExitScore], wanted: str) -> ExitScore:
    by_name = {row.predictor: row for row in rows}
    name = {"final": "student"}.get(wanted, f"exit{wanted}" if wanted.isdecimal() else wanted)
    if name in by_name:
        return by_name[name]
    if len(_exits(rows)) == 1 and name.startswith("exit"):
        raise ConfigError(f"there is no exit '{wanted}': this run has none; take final")
    # a number that does not exist is no slip of the pen: every exit is as near as the other
    hint = f" (there are: {', '.join(by_name)})" if wanted.isdecimal() else nearest(name, by_name)
    raise ConfigError(f"there is no exit '{wanted}'{hint}")


def _val(row: ExitScore) -> float:
    return -1.0 if row.val_score is None else row.val_score


def _missed(
    pool: Sequence[ExitScore],
    cheap: Sequence[ExitScore],
    min_accuracy: float | None,
    max_macs: float | None,
) -> str:
    """Why nothing fits, and the best there is."""
    if not cheap:
        least = min(pool, key=lambda row: row.macs)
        return (
            f"nothing costs {max_macs:,.0f} multiply-adds or less; the cheapest is "
            f"{least.predictor} with {least.macs:,}"
        )
    best = max(cheap, key=_val)
    limit = f" within {max_macs:,.0f} multiply-adds" if max_macs is not None else ""
    missed = f"nothing gets {min_accuracy:.1%} of the validation images right"
    if best.metric != "accuracy":
        missed = f"nothing has a validation {shown_metric(best.metric)} of {min_accuracy:.1%}"
    return f"{missed}{limit}; the best is {best.predictor} with {_val(best):.1%}"
