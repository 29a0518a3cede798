"""Curves from the lines of metrics.jsonl, grouped by the quantity that they show."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core import STUDENT
from .formatting import exit_number
from .run_data import RunData

Array = NDArray[np.float64]
MOST_POINTS = 400


class Curve(NamedTuple):
    """One line of a chart.

    Attributes:
        name: of the term or the predictor.
        stage: number of its exit; None is the full network.
        x, y: its points.
    """

    name: str
    stage: int | None
    x: Array
    y: Array


def thinned(x: Array, y: Array, most: int = MOST_POINTS) -> tuple[Array, Array]:
    """At most `most` points: means of neighbors where there are more. Drops what is not finite."""
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most + 1).astype(int)
    sizes = np.diff(edges)
    return np.add.reduceat(x, edges[:-1]) / sizes, np.add.reduceat(y, edges[:-1]) / sizes


def curve(
    name: str, entries: Iterable[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], Any]
) -> Curve:
    """`value` of each entry over its step; entries for which it is None are left out."""
    points = [(e["step"], y) for e in entries if (y := value(e)) is not None]
    x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return Curve(name, exit_number(name), *thinned(x, y))


def families(run: RunData, kind: str) -> dict[str, list[Curve]]:
    """All "losses" or "monitors" by family, in order: {"soft": [soft/1, soft/2, …], …}.

    A term without a number is the full network's.
    """
    entries = run.steps if len(run.steps) > 1 else run.epochs
    names = dict.fromkeys(name for entry in entries for name in entry.get(kind, {}))
    groups: dict[str, list[Curve]] = {}
    for name in names:
        family = name.rpartition("/")[0] if exit_number(name) else name
        drawn = curve(name, entries, lambda entry, n=name: entry.get(kind, {}).get(n))  # type: ignore[misc]
        if len(drawn.x) > 1:  # a point is no curve
            full = drawn.stage is None
            groups.setdefault(family, []).append(drawn._replace(name=STUDENT) if full else drawn)
    return groups


def total(run: RunData) -> Curve:
    """The sum of all loss terms, which training minimizes."""
    entries = run.steps if len(run.steps) > 1 else run.epochs
    evaluated = [entry for entry in entries if entry.get("losses")]
    return curve("total", evaluated, lambda entry: sum(entry["losses"].values()))


def scores(run: RunData) -> list[Curve]:
    """Validation score of every predictor after each epoch, over epochs from 1."""
    evaluated = [{**e, "step": e["epoch"] + 1} for e in run.epochs if e.get("val")]
    names = dict.fromkeys(name for entry in evaluated for name in entry["val"])
    return [
        curve(name, evaluated, lambda entry, n=name: entry["val"].get(n, {}).get(run.metric))  # type: ignore[misc]
        for name in names
    ]
