"""A lane for each row of a comparison: its values, their mean and its intervals."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from .style import (
    GRID,
    INK,
    LETTER,
    MUTED,
    PAGE,
    SMALL,
    TEXT,
    WIDE,
    Chart,
    Margins,
    canvas,
    ticks,
    to_svg,
)

_HEIGHT = 34.0  # pixels of a lane


class Lane(NamedTuple):
    """One row.

    Attributes:
        name: written on the left.
        label: of the mean, written on the right.
        values: one for each seed.
        color: of all that is drawn.
        outer, inner: intervals of the mean, drawn thin and thick, if they are known.
    """

    name: str
    label: str
    values: Sequence[float]
    color: str
    outer: tuple[float, float] | None = None
    inner: tuple[float, float] | None = None


def lanes_chart(
    lanes: Sequence[Lane], name: str, description: str, *, differences: bool = False
) -> Chart:
    """All lanes, the first on top.

    Args:
        lanes: in order.
        name: of the chart, unique on the page.
        description: its beginning; the means are added.
        differences: values are differences in percentage points, drawn around zero; else percent.
    """
    margins = Margins(
        left=min(240, max(len(lane.name) for lane in lanes) * 1.1 * LETTER + 16),
        right=max(len(lane.label) for lane in lanes) * LETTER + 16,
        bottom=40,
        top=6,
    )
    figure, axes = canvas(WIDE[0], _HEIGHT * len(lanes) + margins.bottom + margins.top, margins)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.set_yticks([])
    axes.grid(axis="x", color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(ticks())
    if differences:
        axes.axvline(0, color=MUTED, linewidth=1, zorder=1)
        axes.set_xlabel("percentage points", color=MUTED, fontsize=SMALL, loc="right", labelpad=3)
    number = _signed if differences else "{:g} %".format
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    for height, lane in enumerate(lanes):
        _draw(axes, height, lane)
    means = "; ".join(f"{lane.name} {lane.label}" for lane in lanes)
    return to_svg(figure, name, f"{description} Means: {means}")


def _signed(value: float) -> str:
    return f"{value:+g}".replace("-", "−") if value else "0"


def _draw(axes: Axes, height: int, lane: Lane) -> None:
    """Intervals as lines under the mean, the values as small open points above them."""
    for text, x, side, gap in ((lane.name, 0, "right", -10), (lane.label, 1, "left", 10)):
        axes.annotate(
            text,
            (x, height),
            (gap, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=INK,
            fontsize=TEXT,
            ha=side,
            va="center",
        )
    color = lane.color
    for interval, width in ((lane.outer, 1.5), (lane.inner, 5)):
        if interval:
            axes.plot(
                interval, (height, height), color=color, linewidth=width, alpha=0.55, zorder=2
            )
    heights = [height - 0.24] * len(lane.values)
    axes.plot(lane.values, heights, "o", color=color, markersize=4.5, mfc="none", mew=1, zorder=3)
    mean = sum(lane.values) / len(lane.values)
    axes.plot(mean, height, "o", color=color, markersize=8, mec=PAGE, mew=1.5, zorder=4)
