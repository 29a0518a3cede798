"""A matplotlib figure as inline SVG whose colors and fonts are the page's, light or dark.

Figures are drawn in stand-in colors; in the SVG each becomes a CSS variable, so that one picture
serves both themes and all plots of a page share one palette.
"""

import io
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

TEXT, SMALL = 12.0, 11.0  # pixels
INK, MUTED, GRID, PAGE = "#010101", "#010102", "#010103", "#010104"
_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid", PAGE: "page"}


def stage_color(number: int | None) -> str:
    """The stand-in for the color of an exit; None is the whole network."""
    return INK if number is None else f"#0102{number % 256:02x}"


def variable(color: str) -> str:
    """The CSS variable that a stand-in becomes."""
    return f"var(--{_NAMES.get(color) or f'exit-{int(color[5:], 16)}'})"


def palette(stages: int) -> dict[str, list[str]]:
    """Colors of exits 1, 2, … for each theme; the whole network has the color of the text.

    Even steps through a perceptually uniform map, so that deeper is darker on white and lighter on
    black, for color-blind eyes and in gray print, too.
    """
    ends = {"light": (0.70, 0.16), "dark": (0.42, 0.88)}
    places = {theme: np.linspace(*end, max(stages, 2))[:stages] for theme, end in ends.items()}
    plasma = colormaps["plasma"]
    return {theme: [to_hex(plasma(at)) for at in some] for theme, some in places.items()}


class Margins(NamedTuple):
    """Pixels between the axes and the picture's edges."""

    left: float = 50
    right: float = 16
    bottom: float = 40
    top: float = 26


def ticks(most: int = 5, *, integer: bool = False) -> MaxNLocator:
    """A few round places."""
    return MaxNLocator(most, integer=integer, steps=[1, 2, 2.5, 5, 10])


def canvas(width: float, height: float, margins: Margins) -> tuple[Figure, Axes]:
    """A figure of so many pixels with one plain pair of axes."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    box = (
        margins.left / width,
        margins.bottom / height,
        1 - (margins.left + margins.right) / width,
        1 - (margins.bottom + margins.top) / height,
    )
    axes = figure.add_axes(box)
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=MUTED, linewidth=1)
    axes.tick_params(colors=MUTED, labelsize=SMALL, length=0, pad=6)
    return figure, axes


def grid(axes: Axes, x_label: str, y_label: str) -> None:
    """Quiet horizontal lines, and labels that are read without turning the head."""
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel(x_label, color=MUTED, fontsize=SMALL, loc="right", labelpad=3)
    axes.annotate(
        y_label,
        (0, 1),
        (-Margins().left + 4, 20),
        xycoords="axes fraction",
        textcoords="offset points",
        color=MUTED,
        fontsize=SMALL,
        va="top",
    )


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `svg` element for a page.

    Args:
        figure: drawn in the stand-in colors of this file.
        name: unique on the page; its ids start with it.
        description: what the picture shows, for those who cannot see it.
    """
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser draws the text: it does not matter which letters matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub("#010[12][0-9a-f]{2}", lambda found: variable(found[0]), text)
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    width, height = figure.get_size_inches() * 72
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" style="max-width: {1.15 * width:.0f}px"'
    opening = f'<svg {size} role="img" aria-label="{description}">'
    return opening + text[text.index(">") + 1 :]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places at least `gap` apart and inside [low, high], as near to the wanted ones as can be.

    Isotonic regression by pooling neighbors: with the gaps taken off, places must not decrease.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    pools: list[list[float]] = []  # [sum, count]
    for rank, i in enumerate(order):
        pools.append([wanted[i] - rank * gap, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1] = [pools[-1][0] + total, pools[-1][1] + count]
    means = [total / count for total, count in pools for _ in range(int(count))]
    highest = max(low, high - (len(wanted) - 1) * gap)
    places = [0.0] * len(wanted)
    for rank, i in enumerate(order):
        places[i] = min(max(means[rank], low), highest) + rank * gap
    return places
