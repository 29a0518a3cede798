"""The pictures of calibration: is a network as often right as it is sure?"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .figure_style import (
    INK,
    MUTED,
    SMALL,
    Margins,
    canvas,
    grid,
    svg,
    ticks,
)
from .formatting import percent
from .plots import WIDE
from .run_data import Calibration

FEW_IMAGES = 10
_MISS = "#cc540d"  # as in style.css


def reliability_diagram(table: Calibration, name: str) -> str:
    """The share that is right among the images of each confidence, and the gap between the two."""
    figure, axes = _empty("accuracy")
    gap = table.confidence - table.accuracy
    few = table.images < FEW_IMAGES
    for there, strength in ((~few, 1.0), (few & (table.images > 0), 0.35)):
        middle, style = _bars(table, there)
        right = table.accuracy[there]
        axes.bar(middle, right, color=INK, alpha=0.45 * strength, **style)
        axes.bar(middle, gap[there], bottom=right, color=_MISS, alpha=0.7 * strength, **style)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(0, 1.02)
    return svg(figure, name, f"Reliability diagram; calibration error {percent(table.error)}")


def confidence_histogram(table: Calibration, name: str) -> str:
    """How many images the network is how sure of, with its mean confidence and its accuracy."""
    figure, axes = _empty("share of the images")
    there = table.images > 0
    shares = table.images / table.images.sum()
    middle, style = _bars(table, there)
    axes.bar(middle, shares[there], color=INK, alpha=0.45, **style)
    axes.set_ylim(0, 1.25 * shares.max())
    means = {
        "accuracy": float(np.nansum(shares * table.accuracy)),
        "mean confidence": float(np.nansum(shares * table.confidence)),
    }
    crowded = sum(means.values()) > 1  # more room on the left
    beside = min(means.values()) if crowded else max(means.values())
    for place, (word, mean) in enumerate(means.items()):
        color = (INK, _MISS)[place]
        axes.axvline(mean, color=color, linewidth=1.5)
        axes.annotate(
            f"{word} {percent(mean)}",
            (beside, 1),
            (-6 if crowded else 6, -8 - 15 * place),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if crowded else "left",
            color=color,
            fontsize=SMALL,
        )
    said = ", ".join(f"{word} {percent(mean)}" for word, mean in means.items())
    return svg(figure, name, f"Histogram of the confidence; {said}")


def _empty(y_label: str) -> tuple[Figure, Axes]:
    """Both axes count in percent, confidence from left to right."""
    figure, axes = canvas(*WIDE, Margins(right=24))
    grid(axes, "confidence", y_label)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticks())
        axis.set_major_formatter(FuncFormatter(lambda at, _: f"{100 * at:g} %"))
    axes.set_xlim(0, 1)
    return figure, axes


def _bars(table: Calibration, there: Any) -> tuple[Any, dict[str, Any]]:
    """Middles and looks of the bars of the bins that hold images."""
    middle, width = (table.edges[:-1] + table.edges[1:]) / 2, np.diff(table.edges)
    return middle[there], {"width": 0.86 * width[there], "linewidth": 0}
