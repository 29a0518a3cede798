"""Labels at the ends of curves, and the line of chance."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import isotonic_regression

from .style import DASHED, MUTED, SMALL, TEXT

CHANCE = 2 * float(np.log(2))  # the Jensen-Shannon loss of a critic that knows nothing
_DISTANCE = 12.0  # pixels between the axes and a label


class EndLabel(NamedTuple):
    """The label of the last point of a curve."""

    x: float
    y: float
    text: str
    color: str


def label_ends(axes: Axes, labels: Sequence[EndLabel]) -> None:
    """Write each label right of its curve, moved up or down only as far as its neighbors need."""
    pixels = np.array([axes.transData.transform((label.x, label.y)) for label in labels])
    (_, low), (right, high) = axes.transAxes.transform([(0, 0), (1, 1)])
    heights = spread(list(pixels[:, 1]), TEXT + 2, low + 4, high)
    for label, point, height in zip(labels, pixels, heights, strict=True):
        leader = {"arrowstyle": "-", "color": label.color, "linewidth": 0.8, "alpha": 0.6}
        axes.annotate(
            label.text,
            point,
            (right + _DISTANCE, height),
            xycoords="figure pixels",
            textcoords="figure pixels",
            color=label.color,
            fontsize=TEXT,
            va="center",
            arrowprops={**leader, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)},
        )


def spread(targets: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart and inside [low, high], as near to the targets as possible.

    With the gaps subtracted, positions must not decrease: isotonic regression.
    """
    order, gaps = np.argsort(targets, kind="stable"), gap * np.arange(len(targets))
    fitted = isotonic_regression(np.asarray(targets, dtype=float)[order] - gaps).x
    positions = np.empty(len(targets))
    positions[order] = np.clip(fitted, low, max(low, high - gaps[-1])) + gaps
    return [float(position) for position in positions]


def chance_line(axes: Axes, loss: float) -> None:
    """A dashed line at the loss of a critic that only guesses."""
    axes.axhline(loss, color=MUTED, linewidth=1, linestyle=DASHED)
    closed_form = "2 ln 2 = " if np.isclose(loss, CHANCE) else ""
    axes.annotate(
        f"chance: {closed_form}{loss:.3f}",
        (0, loss),
        (2, 4),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        color=MUTED,
        fontsize=SMALL,
    )
