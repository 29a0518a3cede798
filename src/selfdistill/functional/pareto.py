"""Which of several choices are worth having."""

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], scores: Sequence[float | None]) -> list[bool]:
    """Whether each choice is on the Pareto front: nothing is both as cheap and as good, and better.

    Args:
        costs: less is better.
        scores: more is better; a choice without one is not on the front.
    """
    known = [(cost, score) for cost, score in zip(costs, scores, strict=True) if score is not None]
    return [
        score is not None and not any(_dominates(other, (cost, score)) for other in known)
        for cost, score in zip(costs, scores, strict=True)
    ]


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] >= other[1]
