"""Selection of a run's predictor: by name, or the cheapest within limits."""

from collections.abc import Sequence

from ..core import ConfigError, nearest
from ..records.exit_scores import ExitScore
from ..tasks.metric_names import shown_metric

_POINT = 0.01 + 1e-9  # with tolerance: in floating point .98 - .97 exceeds .01


def select_exit(
    scores: Sequence[ExitScore],
    exit: str | int = "auto",
    *,
    min_accuracy: float | None = None,
    max_macs: float | None = None,
) -> ExitScore:
    """The selected predictor of a run.

    `auto` takes the cheapest exit that reaches `min_accuracy`, or, under `max_macs` alone, the most
    accurate within it, and without limits the cheapest within one point of the student. Scores are
    those of the task's primary metric (mean IoU, mean average precision) on the validation images,
    so that the test images remain unseen by any choice.

    Args:
        scores: of the run's predictors.
        exit: ``"auto"``, the number of an exit, or a predictor's name.
        min_accuracy: lowest score on the validation images, a fraction.
        max_macs: multiply-adds of one image, at most.

    Raises:
        ConfigError: there is no such exit, none within the limits, or no validation score.
    """
    automatic = exit == "auto"
    candidates = _exits(scores) if automatic else [_by_name(scores, str(exit))]
    if (automatic or min_accuracy is not None) and any(s.val_score is None for s in candidates):
        raise ConfigError(
            "the run held out no validation images, and test images are not to choose by; name an "
            f"exit and no --min-accuracy ({', '.join(score.predictor for score in scores)})"
        )
    if automatic and min_accuracy is None and max_macs is None:
        return best_tradeoff(scores, "val")
    affordable = [s for s in candidates if max_macs is None or s.macs <= max_macs]
    accepted = [s for s in affordable if min_accuracy is None or _val(s) >= min_accuracy]
    if not accepted:
        raise ConfigError(_rejection(candidates, affordable, min_accuracy, max_macs))
    if min_accuracy is None:
        return max(accepted, key=lambda s: (_val(s), -s.macs)) if automatic else accepted[0]
    return min(accepted, key=lambda s: s.macs)


def best_tradeoff(scores: Sequence[ExitScore], split: str) -> ExitScore:
    """The cheapest of the exits and the student that is within one point of the student.

    Args:
        scores: of a run, all known on this split.
        split: whose scores count, "val" or "test".
    """
    exits = _exits(scores)
    accuracy = {s.predictor: float(getattr(s, f"{split}_score")) for s in exits}
    close = [s for s in exits if accuracy["student"] - accuracy[s.predictor] <= _POINT]
    return min(close, key=lambda s: s.macs)


def _exits(scores: Sequence[ExitScore]) -> list[ExitScore]:
    """Exits and student, without peers and other predictors."""
    return [score for score in scores if score.predictor.startswith(("exit", "student"))]


def _by_name(scores: Sequence[ExitScore], exit: str) -> ExitScore:
    by_name = {score.predictor: score for score in scores}
    return by_name[predictor_name(exit, list(by_name))]


def predictor_name(exit: str, names: Sequence[str]) -> str:
    """The predictor that is meant by the number of an exit or by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    name = f"exit{exit}" if exit.isdecimal() else exit
    if name in names:
        return name
    if name.startswith("exit") and not any(other.startswith("exit") for other in names):
        raise ConfigError(f"there is no exit '{exit}': this run has none; take student")
    # an unknown number is no misspelling, and all exits are equally near to it
    hint = f" (there are: {', '.join(names)})" if exit.isdecimal() else nearest(name, names)
    raise ConfigError(f"there is no exit '{exit}'{hint}")


def _val(score: ExitScore) -> float:
    return -1.0 if score.val_score is None else score.val_score


def _rejection(
    candidates: Sequence[ExitScore],
    affordable: Sequence[ExitScore],
    min_accuracy: float | None,
    max_macs: float | None,
) -> str:
    """Why no exit is within the limits, and the best there is."""
    if not affordable:
        cheapest = min(candidates, key=lambda s: s.macs)
        return (
            f"nothing costs {max_macs:,.0f} multiply-adds or less; the cheapest is "
            f"{cheapest.predictor} with {cheapest.macs:,}"
        )
    best = max(affordable, key=_val)
    limit = f" within {max_macs:,.0f} multiply-adds" if max_macs is not None else ""
    reason = f"nothing gets {min_accuracy:.1%} of the validation images right"
    if best.metric != "accuracy":
        reason = f"nothing has a validation {shown_metric(best.metric)} of {min_accuracy:.1%}"
    return f"{reason}{limit}; the best is {best.predictor} with {_val(best):.1%}"
