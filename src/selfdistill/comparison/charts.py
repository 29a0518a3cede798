"""The pictures of a comparison: every seed's point, the mean, and how far it can be trusted."""

from collections.abc import Sequence
from html import escape

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..functional.statistics import (
    MIN_PAIRS,
    Interval,
    Significance,
    t_interval,
)
from ..reporting.figure_style import (
    GRID,
    INK,
    MUTED,
    PAGE,
    SMALL,
    TEXT,
    Margins,
    canvas,
    stage_color,
    svg,
    ticks,
)
from ..reporting.formatting import LETTER, percent
from .results import RowResult, format_points

ACCENT = stage_color(1)
_WIDTH, _LANE = 480.0, 34.0


def scores(found: Sequence[RowResult], name: str, title: str) -> str:
    """A lane for each row: its seeds, their mean and its t interval."""
    labels = [percent(result.mean, 2) for result in found]
    figure, axes = _lanes([r.row for r in found], labels)
    for lane, result in enumerate(found):
        color = MUTED if lane == 0 else INK
        values = [100 * score for score in result.scores.values()]
        interval = None
        if len(values) >= MIN_PAIRS:
            low, high = t_interval(values)
            interval = Interval(max(0, low), min(100, high))
        _lane(axes, lane, values, interval, color)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g} %"))
    said = "; ".join(f"{r.row} {label}" for r, label in zip(found, labels, strict=True))
    return svg(figure, name, f"{title} of every seed. Means: {escape(said)}")


def differences(found: Sequence[RowResult], name: str) -> str:
    """A lane for each row that has a difference: seed by seed, its mean and both intervals."""
    base = found[0].scores
    rows = [result for result in found[1:] if result.difference]
    labels = [format_points(r.difference.mean) for r in rows if r.difference]
    figure, axes = _lanes([r.row for r in rows], labels)
    axes.axvline(0, color=MUTED, linewidth=1, zorder=1)
    for lane, result in enumerate(rows):
        difference = result.difference
        assert difference is not None, "others were left out"
        beyond = difference.significance is Significance.SIGNIFICANT
        pairs = [100 * (s - base[seed]) for seed, s in result.scores.items() if seed in base]
        t, bootstrap = (
            Interval(100 * i.low, 100 * i.high) if i and difference.n >= MIN_PAIRS else None
            for i in (difference.t, difference.bootstrap)
        )
        _lane(axes, lane, pairs, t, ACCENT if beyond else MUTED, bootstrap)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda at, _: f"{at:+g}".replace("-", "−") if at else "0")
    )
    axes.set_xlabel("percentage points", color=MUTED, fontsize=SMALL, loc="right", labelpad=3)
    said = "; ".join(f"{r.row} {label}" for r, label in zip(rows, labels, strict=True))
    return svg(figure, name, f"Difference of every seed to the baseline. Means: {escape(said)}")


def _signed(at: float) -> str:
    return f"{at:+g}".replace("-", "−") if at else "0"


def _lanes(names: Sequence[str], labels: Sequence[str]) -> tuple[Figure, Axes]:
    """Empty lanes, the first on top, named on the left and with their figures on the right."""
    margins = Margins(
        left=min(240, max(map(len, names)) * 1.1 * LETTER + 16),
        right=max(map(len, labels)) * LETTER + 16,
        bottom=40,
        top=6,
    )
    height = _LANE * len(names) + margins.bottom + margins.top
    figure, axes = canvas(_WIDTH, height, margins)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks([])
    axes.grid(axis="x", color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(ticks())
    for lane, (name, label) in enumerate(zip(names, labels, strict=True)):
        for text, at, side, gap in ((name, 0, "right", -10), (label, 1, "left", 10)):
            axes.annotate(
                text,
                (at, lane),
                (gap, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                color=INK,
                fontsize=TEXT,
                ha=side,
                va="center",
            )
    return figure, axes


def _lane(
    axes: Axes,
    lane: int,
    values: Sequence[float],
    interval: Interval | None,
    color: str,
    inner: Interval | None = None,
) -> None:
    """Intervals as lines under the mean, the seeds as small open points above them."""
    for between, width in ((interval, 1.5), (inner, 5)):
        if between:
            axes.plot(between, (lane, lane), color=color, linewidth=width, alpha=0.55, zorder=2)
    heights = [lane - 0.24] * len(values)
    axes.plot(values, heights, "o", color=color, markersize=4.5, mfc="none", mew=1, zorder=3)
    mean = sum(values) / len(values)
    axes.plot(mean, lane, "o", color=color, markersize=8, mec=PAGE, mew=1.5, zorder=4)
