"""The confusion matrix as a heat map."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ...records.class_tables import ConfusionMatrix
from ..formatting import percent
from .style import (
    GRID,
    HIT,
    INK,
    LETTER,
    MISS,
    MUTED,
    SMALL,
    TEXT,
    Chart,
    Margins,
    canvas,
    ticks,
    to_svg,
)

FEW = 20


def confusion_map(confusion: ConfusionMatrix, name: str, *, in_percent: bool = False) -> Chart:
    """The matrix as a heat map, with numbers and names for few classes.

    Correct and wrong predictions have different hues, and the wrong ones a scale of their own:
    they are rare and would be invisible beside the diagonal. Empty cells are transparent, so the
    chart fits both themes.

    Args:
        confusion: of any number of classes.
        name: of the chart, unique on the page.
        in_percent: write percent of the row instead of counts, which may have too many digits.
    """
    size = len(confusion.classes)
    few = size <= FEW
    shares = confusion.counts / np.maximum(confusion.counts.sum(1, keepdims=True), 1)
    hits = np.eye(size, dtype=bool)
    misses = np.where(hits, 0, shares)
    strength = np.where(hits, shares, 0.85 * misses / max(misses.max(), 1e-9))
    names = [c if len(c) <= 14 else f"{c[:13]}…" for c in confusion.classes] if few else []
    margin = max((len(n) for n in names), default=4) * LETTER + 30
    slanted = few and max(len(n) for n in names) * LETTER > 440 / size - 4
    top = (0.75 * margin if slanted else 30) + 22
    figure, axes = canvas(440 + margin + 12, 440 + top + 12, Margins(margin, 12, 12, top))
    hues = np.where(hits[..., None], HIT, MISS)  # (K, K, 3)
    rgba = np.concatenate([hues, strength[..., None] ** 0.8], -1)
    axes.imshow(rgba, interpolation="none", aspect="auto")
    _name_classes(axes, names, size, slanted=slanted)
    if few:
        values = (100 * shares).round().astype(int) if in_percent else confusion.counts
        for (row, column), value in np.ndenumerate(values):
            if value:
                color = "white" if strength[row, column] > 0.55 else INK
                fontsize = TEXT if size <= 12 else 9
                axes.text(
                    column,
                    row,
                    str(value),
                    color=color,
                    fontsize=fontsize,
                    ha="center",
                    va="center",
                )
    right = percent(float(np.trace(confusion.counts) / max(confusion.counts.sum(), 1)))
    return to_svg(figure, name, f"Confusion matrix of {size} classes; {right} on the diagonal")


def _name_classes(axes: Axes, names: list[str], size: int, *, slanted: bool) -> None:
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("taken for", color=MUTED, fontsize=SMALL, loc="left")
    axes.set_ylabel("true class", color=MUTED, fontsize=SMALL, loc="top")
    for spine in axes.spines.values():
        spine.set(visible=True, color=GRID)
    if not names:
        axes.xaxis.set_major_locator(ticks(6, integer=True))
        axes.yaxis.set_major_locator(ticks(6, integer=True))
        return
    turn: dict[str, Any] = (
        {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if slanted else {}
    )
    # A class may be called "$x$": names are text, not formulas.
    axes.set_xticks(range(size), names, parse_math=False, color=INK, **turn)
    axes.set_yticks(range(size), names, parse_math=False, color=INK)
    axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    axes.grid(which="minor", color=GRID, linewidth=0.6)
    axes.tick_params(which="minor", length=0)
