"""From lines of metrics to curves that can be drawn, grouped by what they measure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .run_data import LAST, RunData, stage

Array = NDArray[np.float64]
MOST_POINTS = 400


class Curve(NamedTuple):
    """One line of a plot: its name, the exit it is of (None: the whole network), and its points."""

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
    """What `value` says of each line over its step; lines of which it says None are left out."""
    points = [(e["step"], y) for e in entries if (y := value(e)) is not None]
    x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return Curve(name, stage(name), *thinned(x, y))


def families(contents: RunData, kind: str) -> dict[str, list[Curve]]:
    """All "losses" or "monitors" by family, in order: {"soft": [soft/1, soft/2, …], …}.

    A term without a number is the whole network's.
    """
    entries = contents.steps if len(contents.steps) > 1 else contents.epochs
    names = dict.fromkeys(name for entry in entries for name in entry.get(kind, {}))
    found: dict[str, list[Curve]] = {}
    for name in names:
        family = name.rpartition("/")[0] if stage(name) else name
        drawn = curve(name, entries, lambda entry, n=name: entry.get(kind, {}).get(n))  # type: ignore[misc]
        if len(drawn.x):
            whole = drawn.stage is None
            found.setdefault(family, []).append(drawn._replace(name=LAST) if whole else drawn)
    return found


def total(contents: RunData) -> Curve:
    """The sum of all loss terms, which is what training lowers."""
    entries = contents.steps if len(contents.steps) > 1 else contents.epochs
    judged = [entry for entry in entries if entry.get("losses")]
    return curve("total", judged, lambda entry: sum(entry["losses"].values()))


def scores(contents: RunData) -> list[Curve]:
    """Validation score of every predictor after each epoch, over epochs from 1."""
    judged = [{**e, "step": e["epoch"] + 1} for e in contents.epochs if e.get("val")]
    names = dict.fromkeys(name for entry in judged for name in entry["val"])
    return [
        curve(name, judged, lambda entry, n=name: entry["val"].get(n, {}).get(contents.metric))  # type: ignore[misc]
        for name in names
    ]
