"""Style of all charts, and matplotlib figures as SVG in the colors and fonts of the page.

Figures are drawn in placeholder colors; in the SVG each becomes a CSS variable, so that one chart
serves both themes and all charts of a page share one palette.
"""

import io
import re
import warnings
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

TEXT, SMALL = 12.0, 11.0  # pixels
LETTER = 6.4  # pixels of a mean letter in a chart's labels
GAP = "\u2002"  # between a name and its value; plain spaces would collapse
WIDE, NARROW = (480.0, 300.0), (340.0, 215.0)  # of a chart, in pixels
DASHED = (0, (4, 3))
INK, MUTED, GRID, PAGE = "#010101", "#010102", "#010103", "#010104"
HIT, MISS = (0.18, 0.42, 0.75), (0.80, 0.33, 0.05)  # as in style.css
_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid", PAGE: "page"}


def stage_color(number: int | None) -> str:
    """The placeholder for the color of an exit; None is the full network."""
    return INK if number is None else f"#0102{number % 256:02x}"


def css_variable(color: str) -> str:
    """The CSS variable that a placeholder becomes."""
    return f"var(--{_NAMES.get(color) or f'exit-{int(color[5:], 16)}'})"


def palette(stages: int) -> dict[str, list[str]]:
    """Colors of exits 1, 2, … for each theme; the full network has the color of the text.

    Even steps through a perceptually uniform map, so that deeper is darker on white and lighter on
    black, for color-blind eyes and in gray print, too.
    """
    ends = {"light": (0.70, 0.16), "dark": (0.42, 0.88)}
    plasma = colormaps["plasma"]
    return {
        theme: [to_hex(plasma(x)) for x in np.linspace(*limits, max(stages, 2))[:stages]]
        for theme, limits in ends.items()
    }


class Margins(NamedTuple):
    """Pixels between the axes and the picture's edges."""

    left: float = 50
    right: float = 16
    bottom: float = 40
    top: float = 26


def ticks(most: int = 5, *, integer: bool = False) -> MaxNLocator:
    """Locator of a few round numbers."""
    return MaxNLocator(most, integer=integer, steps=[1, 2, 2.5, 5, 10])


def percent_axis(axis: Axis) -> None:
    """A few round numbers, fractions written as percent."""
    axis.set_major_locator(ticks())
    axis.set_major_formatter(FuncFormatter(lambda fraction, _: f"{100 * fraction:g} %"))


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
    """Horizontal grid lines and horizontal axis labels."""
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


class Chart(NamedTuple):
    """A chart, to be set into a page.

    Attributes:
        width, height: in pixels.
        description: its content in words, for those who cannot see it.
        body: content of the `svg` element.
    """

    width: float
    height: float
    description: str
    body: Markup


def to_svg(figure: Figure, name: str, description: str) -> Chart:
    """The figure as SVG for a page.

    Args:
        figure: drawn in the placeholder colors of this file.
        name: unique on the page; the ids of the chart start with it.
        description: its content in words.
    """
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser draws the text: it does not matter which letters matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") : text.rindex("<")]
    text = re.sub(r"<(metadata|style).*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub("#010[12][0-9a-f]{2}", lambda match: css_variable(match[0]), text)
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    width, height = figure.get_size_inches() * 72
    return Chart(width, height, description, Markup(text[text.index(">") + 1 :]))
