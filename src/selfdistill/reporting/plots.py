"""The report's pictures. Every function returns an `svg` element."""

from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from .curves import Curve
from .figure_style import (
    MUTED,
    SMALL,
    TEXT,
    Margins,
    canvas,
    grid,
    spread,
    stage_color,
    svg,
    ticks,
)
from .formatting import (
    GAP,
    LETTER,
    Words,
    number,
    percent,
    shown,
)

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
        curves: what to draw, each in the color of its exit.
        name: of the picture, unique on the page.
        y_label, x_label: of the axes.
        size: width and height in pixels.
        value: writes a value of y.
        named: write names beside the values.
        chance: where knowing nothing would be; a labeled line.
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
        axes.plot(c.x, c.y, color=stage_color(c.stage), linewidth=width, **marker)  # type: ignore[arg-type]
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
    digits = 3 if high - low > 0.05 * abs(high) else 6  # neighbors must not read the same
    words = FuncFormatter(lambda at, _: f"{number(scale * at, digits)}{unit}")
    axes.yaxis.set_major_formatter(words)


def _end_labels(axes: Axes, curves: Sequence[Curve], ends: Sequence[str]) -> None:
    """Each label at its curve's end, moved up or down only as far as its neighbors ask."""
    pixels = [axes.transData.transform((c.x[-1], c.y[-1])) for c in curves]
    (_, low), (_, high) = axes.transAxes.transform([(0, 0), (1, 1)])
    places = spread([y for _, y in pixels], TEXT + 2, low + 4, high)
    edge = axes.transAxes.transform((1, 0))[0]
    for c, end, (x, y), place in zip(curves, ends, pixels, places, strict=True):
        color = stage_color(c.stage)
        axes.annotate(
            end,
            (x, y),
            (edge + 12, place),
            xycoords="figure pixels",
            textcoords="figure pixels",
            color=color,
            fontsize=TEXT,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.8,
                "alpha": 0.6,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )
