"""Scores against cost, with the Pareto front."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ...functional.pareto import pareto_front
from ...records import BASELINE
from ...records.exit_measurements import ExitMeasurements
from ..formatting import NumberFormat, count, exit_number, percent, shown, titled
from ..run_data import RunData
from .style import (
    GAP,
    LETTER,
    MUTED,
    PAGE,
    TEXT,
    WIDE,
    Chart,
    Margins,
    canvas,
    grid,
    percent_axis,
    stage_color,
    ticks,
    to_svg,
)


class Point(NamedTuple):
    """A predictor.

    Attributes:
        name: its own.
        cost: what it costs, in any unit.
        score: its accuracy, or what else the run is evaluated by.
        front: whether it is on the Pareto front.
    """

    name: str
    cost: float
    score: float
    front: bool

    @property
    def color(self) -> str:
        """That of the exit; the baseline's is its own."""
        return MUTED if self.name == BASELINE else stage_color(exit_number(self.name))


def points(run: RunData, split: str) -> list[Point]:
    """The predictors of a finished run by their multiply-adds, and the baseline if one is known."""
    measured = run.measured
    rows = [row for row in run.exits if row.score(split) is not None]
    fronts = pareto_front([row.macs for row in rows], [row.score(split) for row in rows])
    run_points = [
        Point(row.predictor, row.macs, row.score(split) or 0.0, front)
        for row, front in zip(rows, fronts, strict=True)
    ]
    if run_points and measured and measured.about["cost"] == "actual":
        run_points += [p for p in measured_points(measured, split) if p.name == BASELINE]
    return run_points


def measured_points(
    measured: ExitMeasurements, split: str, timed: tuple[str, int] | None = None
) -> list[Point]:
    """What was measured, by multiply-adds or by the milliseconds of one (device, batch)."""
    rows = [row for row in measured.all_rows if split in row.scores]
    rows = [row for row in rows if timed is None or timed in row.seconds]
    costs = [row.cost.macs if timed is None else 1000 * row.seconds[timed] for row in rows]
    scores = [None if row.predictor == BASELINE else row.scores[split] for row in rows]
    return [
        Point(row.predictor, cost, row.scores[split], front)
        for row, cost, front in zip(rows, costs, pareto_front(costs, scores), strict=True)
    ]


def cost_scatter(
    plotted: Sequence[Point],
    name: str,
    y_label: str,
    x_label: str = "multiply-adds an image",
    value: NumberFormat = count,
) -> Chart:
    """The score of every predictor against its cost, each point labeled.

    Points on the Pareto front are full, the others hollow, and the baseline is a square.

    Args:
        plotted: one predictor or more.
        name: of the chart, unique on the page.
        y_label, x_label: of the axes.
        value: writes a cost.
    """
    figure, axes = canvas(*WIDE, Margins(right=24))
    grid(axes, x_label, y_label)
    x, y = np.array([[point.cost, point.score] for point in plotted]).T
    _scale(axes, plotted, value)
    lines = _draw_front(axes, [point for point in plotted if point.front])
    labels = [f"{shown(point.name)}{GAP}{percent(point.score)}" for point in plotted]
    offsets = _clear_offsets(axes, np.stack([x, y], 1), labels, lines)
    for point, label, (dx, dy) in zip(plotted, labels, offsets, strict=True):
        _draw(axes, point)
        axes.annotate(
            label,
            (point.cost, point.score),
            (dx, dy),
            textcoords="offset points",
            color=point.color,
            fontsize=TEXT,
            va="center",
        )
    return to_svg(figure, name, f"{titled(y_label)} against {x_label}. {'; '.join(labels)}")


def _scale(axes: Axes, plotted: Sequence[Point], value: NumberFormat) -> None:
    scores = [point.score for point in plotted]
    low, high = min(scores), max(scores)
    room = (high - low) or 0.01
    axes.set_xlim(0, 1.12 * max(point.cost for point in plotted))
    axes.set_ylim(low - 0.15 * room, high + 0.25 * room)
    axes.xaxis.set_major_locator(ticks())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: value(cost)))
    percent_axis(axes.yaxis)


Line = list[tuple[float, float]]  # corners


def _draw_front(axes: Axes, front: Sequence[Point]) -> list[Line]:
    """A staircase: the best that each cost can buy."""
    order = sorted(front, key=lambda point: point.cost)
    ends = [*(point.cost for point in order[1:]), axes.get_xlim()[1]]
    corners = [
        corner for point, end in zip(order, ends, strict=False) for corner in _step(point, end)
    ]
    if corners:
        axes.plot(*np.array(corners).T, color=MUTED, linewidth=1, zorder=1)
    return [list(pair) for pair in pairwise(corners)]


def _step(point: Point, end: float) -> Line:
    return [(point.cost, point.score), (end, point.score)]


def _draw(axes: Axes, point: Point) -> None:
    xy, color = (point.cost, point.score), point.color
    if point.name == BASELINE:  # wide enough to show around a point of the same cost and score
        axes.plot(*xy, "s", markersize=13, mfc="none", mec=color, mew=1.2, zorder=2)
    elif point.front:
        axes.plot(*xy, "o", markersize=9, mfc=color, mec=PAGE, mew=1.5, zorder=3)
    else:
        axes.plot(*xy, "o", markersize=8, mfc=PAGE, mec=color, mew=1.5, zorder=3)


Box = tuple[float, float, float, float]  # left, bottom, right, top


def _clear_offsets(
    axes: Axes, points: np.ndarray, labels: Sequence[str], lines: Sequence[Line]
) -> list[tuple[float, float]]:
    """For each point the first offset at which its label hides nothing."""
    pixels = axes.transData.transform(points)
    taken: list[Box] = [(x - 7, y - 7, x + 7, y + 7) for x, y in pixels]
    taken += [_around(axes.transData.transform(line)) for line in lines]
    (left, bottom), (right, top) = axes.transAxes.transform([(0, 0), (1, 1)])
    chosen: list[tuple[float, float]] = []
    for (x, y), label in zip(pixels, labels, strict=True):
        width = len(label) * LETTER
        around = [
            (dx, dy)
            for dy in (0, 15, -15, 30, -30, 45)
            for dx in ((10, -10 - width) if dy == 0 else (-width / 2, 4, -4 - width))
        ]
        boxes = [(x + dx, y + dy - 7, x + dx + width, y + dy + 7) for dx, dy in around]
        clear = [
            i
            for i, (x0, y0, x1, y1) in enumerate(boxes)
            if left < x0 and x1 < right + 20 and bottom < y0 and y1 < top + 4
            if all(x1 < u[0] or x0 > u[2] or y1 < u[1] or y0 > u[3] for u in taken)
        ]
        best = clear[0] if clear else 0
        taken.append(boxes[best])
        chosen.append(around[best])
    return chosen


def _around(corners: np.ndarray) -> Box:
    """What a line and its ends cover."""
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    return x0 - 4, y0 - 1, x1 + 4, y1 + 1
