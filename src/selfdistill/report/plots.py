"""The report's pictures. Every function returns an `svg` element."""

from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from .canvas import (
    GRID,
    MUTED,
    PAGE,
    SMALL,
    TEXT,
    Margins,
    canvas,
    grid,
    spread,
    stage_colour,
    svg,
    ticks,
)
from .contents import Exit, stage
from .curves import Curve
from .words import GAP, LETTER, Words, count, number, percent, shown

WIDE, NARROW = (480.0, 300.0), (340.0, 215.0)


def lines(
    curves: Sequence[Curve],
    name: str,
    y_label: str,
    *,
    x_label: str = "step",
    size: tuple[float, float] = WIDE,
    value: Words = number,
    named: bool = True,
    chance: float | None = None,
    zero: bool = False,
    late: bool = False,
) -> str:
    """Curves with their names and last values at their ends.

    Args:
        curves: what to draw, each in the colour of its exit.
        name: of the picture, unique on the page.
        y_label, x_label: of the axes.
        size: width and height in pixels.
        value: writes a value of y.
        named: write names beside the values.
        chance: where knowing nothing would be; a labelled line.
        zero: begin the y axis at zero.
        late: begin it above the lowest tenth of the points, which a curve that rises leaves soon.
    """
    ends = [f"{shown(c.name)}{GAP}{value(c.y[-1])}" if named else value(c.y[-1]) for c in curves]
    right = max(len(end) for end in ends) * LETTER + 18
    figure, axes = canvas(*size, Margins(right=right, top=26 if y_label else 10))
    grid(axes, x_label, y_label)
    width = 1.8 if size == WIDE else 1.4
    for c in curves:
        marker = {"marker": "o", "markersize": 5} if len(c.x) == 1 else {}
        axes.plot(c.x, c.y, color=stage_colour(c.stage), linewidth=width, **marker)  # type: ignore[arg-type]
    _scale(axes, curves, value, zero=zero, late=late, least_top=1.12 * chance if chance else None)
    if chance:
        axes.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"chance: 2 ln 2 = {chance:.3f}",
            (axes.get_xlim()[0], chance),
            (2, 4),
            textcoords="offset points",
            color=MUTED,
            fontsize=SMALL,
        )
    _end_labels(axes, curves, ends)
    said = "; ".join(escape(end) for end in ends)
    return svg(figure, name, f"{escape(y_label)} over {x_label}. At the end: {said}")


def _scale(
    axes: Axes,
    curves: Sequence[Curve],
    value: Words,
    *,
    zero: bool,
    late: bool,
    least_top: float | None,
) -> None:
    x, y = (np.concatenate([getattr(c, axis) for c in curves]) for axis in "xy")
    axes.set_xlim(min(x.min(), 0 if len(x) > len(curves) else x.min() - 1), max(x.max(), 1))
    axes.xaxis.set_major_locator(ticks(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:,.0f}".replace(",", " ")))
    low, high = np.quantile(y, 0.1) if late else y.min(), y.max()
    room = 0.05 * ((high - low) or abs(high) or 1)
    bottom = 0 if zero and low >= 0 else low - room
    axes.set_ylim(bottom, max(high + room, least_top or -np.inf))
    axes.yaxis.set_major_locator(ticks())
    scale, unit = (100, " %") if value is percent else (1, "")
    digits = 3 if high - low > 0.05 * abs(high) else 6  # neighbours must not read the same
    words = FuncFormatter(lambda at, _: f"{number(scale * at, digits)}{unit}")
    axes.yaxis.set_major_formatter(words)


def _end_labels(axes: Axes, curves: Sequence[Curve], ends: Sequence[str]) -> None:
    """Each label at its curve's end, moved up or down only as far as its neighbours ask."""
    pixels = [axes.transData.transform((c.x[-1], c.y[-1])) for c in curves]
    (_, low), (_, high) = axes.transAxes.transform([(0, 0), (1, 1)])
    places = spread([y for _, y in pixels], TEXT + 2, low + 4, high)
    edge = axes.transAxes.transform((1, 0))[0]
    for c, end, (x, y), place in zip(curves, ends, pixels, places, strict=True):
        colour = stage_colour(c.stage)
        axes.annotate(
            end,
            (x, y),
            (edge + 12, place),
            xycoords="figure pixels",
            textcoords="figure pixels",
            color=colour,
            fontsize=TEXT,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.8,
                "alpha": 0.6,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def cost_scatter(rows: Sequence[Exit], split: str, name: str) -> str:
    """Accuracy of every predictor against its multiply-adds, each point labelled."""
    points = [(row, score) for row in rows if (score := row.score(split)) is not None]
    figure, axes = canvas(*WIDE, Margins(right=24))
    grid(axes, "multiply-adds an image", f"{split} accuracy")
    x, y = np.array([[row.macs, score] for row, score in points]).T
    room = (y.max() - y.min()) or 0.01
    axes.set_xlim(0, 1.12 * x.max())
    axes.set_ylim(y.min() - 0.15 * room, y.max() + 0.25 * room)
    axes.xaxis.set_major_locator(ticks())
    axes.yaxis.set_major_locator(ticks())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: count(at)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{100 * at:g} %"))
    order = np.argsort(x)
    axes.plot(x[order], y[order], color=GRID, linewidth=1.5, zorder=1)
    labels = [f"{shown(row.name)}{GAP}{percent(score)}" for row, score in points]
    places = _clear_places(axes.transData.transform(np.stack([x, y], 1)), labels, axes)
    for (row, score), label, (dx, dy) in zip(points, labels, places, strict=True):
        colour = stage_colour(stage(row.name))
        axes.plot(row.macs, score, "o", color=colour, markersize=9, mec=PAGE, mew=1.5, zorder=3)
        axes.annotate(
            label,
            (row.macs, score),
            (dx, dy),
            textcoords="offset points",
            color=colour,
            fontsize=TEXT,
            va="center",
        )
    return svg(figure, name, f"Accuracy against multiply-adds. {escape('; '.join(labels))}")


Box = tuple[float, float, float, float]  # left, bottom, right, top


def _clear_places(
    points: np.ndarray, labels: Sequence[str], axes: Axes
) -> list[tuple[float, float]]:
    """For each point the first place around it where its label hides no point and no label."""
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    (left, bottom), (right, top) = axes.transAxes.transform([(0, 0), (1, 1)])
    chosen: list[tuple[float, float]] = []
    for (x, y), label in zip(points, labels, strict=True):
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
