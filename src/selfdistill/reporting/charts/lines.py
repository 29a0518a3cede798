"""Line charts of a quantity over steps or epochs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ..curves import Curve
from ..formatting import NumberFormat, number, percent, shown
from .labels import EndLabel, chance_line, label_ends
from .style import GAP, LETTER, WIDE, Chart, Margins, canvas, grid, stage_color, ticks, to_svg


def lines(
    curves: Sequence[Curve],
    name: str,
    y_label: str,
    *,
    x_label: str = "step",
    size: tuple[float, float] = WIDE,
    value: NumberFormat = number,
    named: bool = True,
    chance: float | None = None,
    zero: bool = False,
    late: bool = False,
) -> Chart:
    """Curves with their names and last values at their ends.

    Args:
        curves: each is drawn in the color of its exit.
        name: of the chart, unique on the page.
        y_label, x_label: of the axes.
        size: width and height in pixels.
        value: writes a value of y.
        named: write names beside the values.
        chance: the loss of a critic that only guesses; a labeled line.
        zero: begin the y axis at zero.
        late: begin the y axis above the lowest tenth of the points, to show how the curves end.
    """
    texts = [f"{shown(c.name)}{GAP}{value(c.y[-1])}" if named else value(c.y[-1]) for c in curves]
    right = max(map(len, texts)) * LETTER + 18
    figure, axes = canvas(*size, Margins(right=right, top=26 if y_label else 10))
    grid(axes, x_label, y_label)
    width = 1.8 if size == WIDE else 1.4
    for curve in curves:
        color, style = stage_color(curve.stage), "o-" if len(curve.x) == 1 else "-"
        axes.plot(curve.x, curve.y, style, color=color, linewidth=width, markersize=5)
    _scale(axes, curves, value, zero=zero, late=late, least_top=1.12 * chance if chance else None)
    if chance:
        chance_line(axes, chance)
    label_ends(
        axes,
        [
            EndLabel(curve.x[-1], curve.y[-1], text, stage_color(curve.stage))
            for curve, text in zip(curves, texts, strict=True)
        ],
    )
    return to_svg(figure, name, f"{y_label} over {x_label}. At the end: {'; '.join(texts)}")


def _scale(
    axes: Axes,
    curves: Sequence[Curve],
    value: NumberFormat,
    *,
    zero: bool,
    late: bool,
    least_top: float | None,
) -> None:
    x, y = (np.concatenate([getattr(c, axis) for c in curves]) for axis in "xy")
    axes.set_xlim(min(x.min(), 0 if len(x) > len(curves) else x.min() - 1), max(x.max(), 1))
    axes.xaxis.set_major_locator(ticks(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}".replace(",", " ")))
    low, high = np.quantile(y, 0.1) if late else y.min(), y.max()
    room = 0.05 * ((high - low) or abs(high) or 1)
    bottom = 0 if zero and low >= 0 else low - room
    axes.set_ylim(bottom, max(high + room, least_top or -np.inf))
    axes.yaxis.set_major_locator(ticks())
    scale, unit = (100, " %") if value is percent else (1, "")
    digits = 3 if high - low > 0.05 * abs(high) else 6  # neighbors must not read the same
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{number(scale * y, digits)}{unit}"))
