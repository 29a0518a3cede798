"""The charts of a comparison: every seed's score, the mean, and its intervals."""

from collections.abc import Sequence

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


def scores(rows: Sequence[RowResult], name: str, title: str) -> Chart:
    """A lane for each row: its seeds, their mean and its t interval; the first is the baseline."""
    lanes = []
    for i, row in enumerate(rows):
        values = [100 * score for score in row.scores.values()]
        interval = None
        if len(values) >= MIN_PAIRS:
            low, high = t_interval(values)
            interval = Interval(max(0, low), min(100, high))
        color = INK if i else MUTED
        lanes.append(Lane(row.row, percent(row.mean, 2), values, color, interval))
    return lanes_chart(lanes, name, f"{title} of every seed.")


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
            color = ACCENT if difference.verdict is Significance.BEYOND else MUTED
            lanes.append(Lane(row.row, points(difference.mean), pairs, color, t, bootstrap))
    description = "Difference of every seed to the baseline."
    return lanes_chart(lanes, name, description, differences=True)
