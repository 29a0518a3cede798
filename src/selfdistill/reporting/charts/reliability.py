"""Reliability diagram and histogram of the confidence."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...records.calibration import CalibrationTable
from ..formatting import percent
from .style import (
    DASHED,
    INK,
    MISS,
    MUTED,
    SMALL,
    WIDE,
    Chart,
    Margins,
    canvas,
    grid,
    percent_axis,
    to_svg,
)

FEW_IMAGES = 10


def reliability_diagram(table: CalibrationTable, name: str) -> Chart:
    """Accuracy in each bin of confidence, and the gap between the two."""
    figure, axes = _empty("accuracy")
    gap = table.confidence - table.accuracy
    few = table.images < FEW_IMAGES
    for mask, strength in ((~few, 1.0), (few & (table.images > 0), 0.35)):
        middle, style = _bars(table, mask)
        right = table.accuracy[mask]
        axes.bar(middle, right, color=INK, alpha=0.45 * strength, **style)
        axes.bar(middle, gap[mask], bottom=right, color=MISS, alpha=0.7 * strength, **style)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHED)
    axes.set_ylim(0, 1.02)
    return to_svg(figure, name, f"Reliability diagram; calibration error {percent(table.error)}")


def confidence_histogram(table: CalibrationTable, name: str) -> Chart:
    """How confidence is distributed over the images, with its mean and the accuracy."""
    figure, axes = _empty("share of the images")
    mask = table.images > 0
    shares = table.images / table.images.sum()
    middle, style = _bars(table, mask)
    axes.bar(middle, shares[mask], color=INK, alpha=0.45, **style)
    axes.set_ylim(0, 1.25 * shares.max())
    means = {
        "accuracy": float(np.nansum(shares * table.accuracy)),
        "mean confidence": float(np.nansum(shares * table.confidence)),
    }
    crowded = sum(means.values()) > 1  # more room on the left
    label_x = min(means.values()) if crowded else max(means.values())
    for line, (word, mean) in enumerate(means.items()):
        color = (INK, MISS)[line]
        axes.axvline(mean, color=color, linewidth=1.5)
        axes.annotate(
            f"{word} {percent(mean)}",
            (label_x, 1),
            (-6 if crowded else 6, -8 - 15 * line),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if crowded else "left",
            color=color,
            fontsize=SMALL,
        )
    texts = ", ".join(f"{word} {percent(mean)}" for word, mean in means.items())
    return to_svg(figure, name, f"Histogram of the confidence; {texts}")


def _empty(y_label: str) -> tuple[Figure, Axes]:
    """Both axes count in percent, confidence from left to right."""
    figure, axes = canvas(*WIDE, Margins(right=24))
    grid(axes, "confidence", y_label)
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    axes.set_xlim(0, 1)
    return figure, axes


def _bars(table: CalibrationTable, mask: NDArray[np.bool_]) -> tuple[Any, dict[str, Any]]:
    """Middles and style of the bars of some bins."""
    middle, width = (table.edges[:-1] + table.edges[1:]) / 2, np.diff(table.edges)
    return middle[mask], {"width": 0.86 * width[mask], "linewidth": 0}
