"""The pictures: losses over steps, network by network, and over depth, all networks in one."""

import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..reporting.figure_style import (
    MUTED,
    SMALL,
    TEXT,
    Margins,
    canvas,
    grid,
    palette,
    spread,
    stage_color,
    svg,
    ticks,
)
from ..reporting.formatting import GAP, LETTER, decimals
from .results import HELD_OUT, TRAINING, InformationResult

FAMILIES = {"mutual": "Mutual information with the last module", "self": "Self-information"}
SHORT = {"mutual": "MI with the last module", "self": "self-information"}
SIZE = (480.0, 300.0)
_LABEL = 12.0  # pixels between the axes and a label at a curve's end


class _End(NamedTuple):
    """What is written beside the end of a curve."""

    x: float
    y: float
    text: str
    color: str


def module_of(term: str) -> int:
    """The number of the module that a term is about, from 1."""
    return int(term.rpartition("/")[2])


def colors_needed(found: InformationResult) -> int:
    """How many colors the pictures take, beside that of the text."""
    return max(len(found.taps), *(len(names) - 1 for names in found.taps.values()))


def over_steps(found: InformationResult, network: str, family: str, name: str) -> str:
    """The losses of one network and one family, a color a module, as an `svg` element.

    Strong lines are held-out losses, with a band of a deviation where there are several seeds,
    faint ones those of training. The last module has the color of the text.
    """
    terms = found.terms(network, family)
    deepest = len(found.taps[network])
    axes, drawn = _axes(found, "step", max(len(_end_text(t, 0.0)) for t in terms))
    ends = []
    for term in terms:
        module = module_of(term)
        color = stage_color(None if module == deepest else module)
        held, trained = (found.curve(network, term, split) for split in (HELD_OUT, TRAINING))
        axes.plot(trained.steps, trained.mean, color=color, linewidth=1, alpha=0.35)
        axes.plot(held.steps, held.mean, color=color, linewidth=1.8)
        if held.std.any():
            low, high = held.mean - held.std, held.mean + held.std
            axes.fill_between(held.steps, low, high, color=color, alpha=0.18, linewidth=0)
        last = float(held.mean[-1])
        ends.append(_End(float(held.steps[-1]), last, _end_text(term, last), color))
    axes.set_xlim(0, ends[0].x)
    axes.xaxis.set_major_locator(ticks(integer=True))
    _chance(axes, found)
    _name_ends(axes, ends)
    said = "; ".join(end.text for end in ends)
    return svg(drawn, name, escape(f"{FAMILIES[family]} of {network}, loss over steps: {said}"))


def over_depth(found: InformationResult, family: str, name: str) -> str:
    """The last held-out losses of all networks over their modules, a line a network."""
    axes, drawn = _axes(found, "module", max(map(len, found.networks)) + 2)
    ends = []
    for place, network in enumerate(found.networks, 1):
        terms = found.terms(network, family)
        amounts = [found.final(network, term) for term in terms]
        modules = [module_of(term) for term in terms]
        means, stds = [a.mean for a in amounts], [a.std for a in amounts]
        color = stage_color(place)
        axes.errorbar(
            modules, means, stds, color=color, marker="o", markersize=5, linewidth=1.8, capsize=3
        )
        ends.append(_End(modules[-1], means[-1], network, color))
    deepest = max(module_of(t) for n in found.networks for t in found.terms(n, family))
    axes.set_xlim(0.7, deepest + 0.15)
    axes.set_xticks(range(1, deepest + 1))
    _chance(axes, found)
    _name_ends(axes, ends)
    said = ", ".join(found.networks)
    return svg(drawn, name, escape(f"{FAMILIES[family]}, loss over modules, of {said}"))


def combined_svg(found: InformationResult) -> str:
    """All curves over steps as one SVG file, a row a family and a column a network."""
    panels = [
        (f"{network}: {short}", over_steps(found, network, family, f"{family}-{place}"))
        if found.terms(network, family)
        else ("", "")
        for family, short in SHORT.items()
        for place, network in enumerate(found.networks)
    ]
    return arranged(panels, len(found.networks))


def arranged(panels: Sequence[tuple[str, str]], columns: int) -> str:
    """Titles and pictures as one SVG file, in the colors of the page by day."""
    width, height, head = SIZE[0] + 24, SIZE[1], 28.0
    parts = ['<rect width="100%" height="100%" fill="var(--page)"/>']
    for at, (title, panel) in enumerate(panels):
        x, y = at % columns * width, at // columns * (height + head)
        parts.append(f'<text x="{x + 10:g}" y="{y + 18:g}" class="title">{escape(title)}</text>')
        place = f'x="{x:g}" y="{y + head:g}" width="{SIZE[0]:g}" height="{height:g}"'
        parts.append(panel.replace("<svg ", f"<svg {place} ", 1))
    rows = -(-len(panels) // columns)
    return _plain("".join(parts), (columns * width, rows * (height + head)))


def _plain(body: str, size: tuple[float, float]) -> str:
    """A file of its own: colors instead of variables, and letters that every machine has."""
    style = files("selfdistill.reporting").joinpath("style.css").read_text(encoding="utf-8")
    colors = dict(re.findall(r"--(\w+): (#\w+)", style[: style.index("@media")]))
    stages = [int(number) for number in re.findall(r"var\(--exit-(\d+)\)", body)]
    light = palette(max(stages, default=1))["light"]
    colors |= {f"exit-{number}": color for number, color in enumerate(light, 1)}
    body = re.sub(r"var\(--([\w-]+)\)", lambda variable: colors[variable[1]], body)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    letters = "svg { overflow: visible; } "
    letters += "text { font-family: system-ui, Helvetica, Arial, sans-serif !important; }"
    letters += f" .title {{ font-size: 14px; font-weight: 600; fill: {colors['ink']}; }}"
    width, height = size
    opening = f'<svg {names} viewBox="0 0 {width:g} {height:g}" width="{width:g}">'
    return f"{opening}<style>{letters}</style>{body}</svg>\n"


def _axes(found: InformationResult, x_label: str, letters: int) -> tuple[Axes, Figure]:
    """Empty axes with room for labels of so many letters at the right."""
    figure, axes = canvas(*SIZE, Margins(right=letters * LETTER + 18))
    grid(axes, x_label, f"loss ({found.config.estimator})")
    axes.yaxis.set_major_locator(ticks())
    return axes, figure


def _end_text(term: str, loss: float) -> str:
    return f"module {module_of(term)}{GAP}{decimals(loss)}"


def _chance(axes: Axes, found: InformationResult) -> None:
    """The line on which a critic only guesses, on a scale that all pictures share."""
    losses = [found.chance, *(row.loss for row in found.rows)]
    bottom, top = min(0.0, *losses), max(losses)
    room = 0.05 * (top - bottom)
    axes.set_ylim(bottom - room * (bottom < 0), top + room)
    axes.axhline(found.chance, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    known = " = 2 ln 2" if found.config.estimator == "jsd" else ""
    axes.annotate(
        f"chance{known} = {found.chance:.3f}",
        (0, found.chance),
        (2, 4),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        color=MUTED,
        fontsize=SMALL,
    )


def _name_ends(axes: Axes, ends: Sequence[_End]) -> None:
    """Each label beside its curve's end, moved only as far as its neighbors ask."""
    pixels = np.array([axes.transData.transform((end.x, end.y)) for end in ends])
    (_, low), (right, high) = axes.transAxes.transform([(0, 0), (1, 1)])
    places = spread(list(pixels[:, 1]), TEXT + 2, low + 4, high)
    for end, (x, y), place in zip(ends, pixels, places, strict=True):
        leader = {"arrowstyle": "-", "color": end.color, "linewidth": 0.8, "alpha": 0.6}
        axes.annotate(
            end.text,
            (x, y),
            (right + _LABEL, place),
            xycoords="figure pixels",
            textcoords="figure pixels",
            color=end.color,
            fontsize=TEXT,
            va="center",
            arrowprops={**leader, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)},
        )
