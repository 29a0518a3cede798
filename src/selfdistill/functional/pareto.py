"""Pareto fronts of cost and score."""

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], scores: Sequence[float | None]) -> list[bool]:
    """Whether each candidate is on the Pareto front: none dominates it.

    One dominates another if it is at least as cheap and as good, and better in one of the two.

    Args:
        costs: lower is better.
        scores: higher is better; a candidate without one is not on the front.
    """
    known = [(cost, score) for cost, score in zip(costs, scores, strict=True) if score is not None]
    return [
        score is not None and not any(_dominates(other, (cost, score)) for other in known)
        for cost, score in zip(costs, scores, strict=True)
    ]


def _dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a != b and a[0] <= b[0] and a[1] >= b[1]
