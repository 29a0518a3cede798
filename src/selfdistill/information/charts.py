"""The charts of a measurement: losses over steps and over depth."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..reporting.charts.labels import EndLabel, chance_line, label_ends
from ..reporting.charts.standalone import standalone_svg
from ..reporting.charts.style import (
    GAP,
    LETTER,
    WIDE,
    Chart,
    Margins,
    canvas,
    grid,
    stage_color,
    ticks,
    to_svg,
)
from ..reporting.formatting import decimals
from .results import HELD_OUT, TRAINING, InformationResult

FAMILIES = {"mutual": "Mutual information with the last module", "self": "Self-information"}
SHORT = {"mutual": "MI with the last module", "self": "self-information"}


def module_of(term: str) -> int:
    """The number of the module that a term is about, from 1."""
    return int(term.rpartition("/")[2])


def num_colors(result: InformationResult) -> int:
    """How many colors the charts take, besides that of the text."""
    return max(len(result.taps), *(len(names) - 1 for names in result.taps.values()))


def over_steps(result: InformationResult, network: str, family: str, name: str) -> Chart:
    """The losses of one network and one family, a color for each module.

    Strong lines are held-out losses, with a band of one standard deviation where there are several
    seeds, faint ones those of training. The last module has the color of the text.
    """
    terms = result.terms(network, family)
    deepest = len(result.taps[network])
    figure, axes = _canvas(result, "step", max(len(_end_text(term, 0.0)) for term in terms))
    labels = []
    for term in terms:
        module = module_of(term)
        color = stage_color(None if module == deepest else module)
        held, trained = (result.curve(network, term, split) for split in (HELD_OUT, TRAINING))
        axes.plot(trained.steps, trained.mean, color=color, linewidth=1, alpha=0.35)
        axes.plot(held.steps, held.mean, color=color, linewidth=1.8)
        if held.std.any():
            low, high = held.mean - held.std, held.mean + held.std
            axes.fill_between(held.steps, low, high, color=color, alpha=0.18, linewidth=0)
        last = float(held.mean[-1])
        labels.append(EndLabel(float(held.steps[-1]), last, _end_text(term, last), color))
    axes.set_xlim(0, labels[0].x)
    axes.xaxis.set_major_locator(ticks(integer=True))
    _chance(axes, result)
    label_ends(axes, labels)
    texts = "; ".join(label.text for label in labels)
    return to_svg(figure, name, f"{FAMILIES[family]} of {network}, loss over steps: {texts}")


def over_depth(result: InformationResult, family: str, name: str) -> Chart:
    """The last held-out losses of all networks over their modules, a line for each network."""
    figure, axes = _canvas(result, "module", max(map(len, result.networks)) + 2)
    style: dict[str, Any] = {"marker": "o", "markersize": 5, "linewidth": 1.8, "capsize": 3}
    labels = []
    for number, network in enumerate(result.networks, 1):
        terms = result.terms(network, family)
        losses = [result.final(network, term) for term in terms]
        modules, color = [module_of(term) for term in terms], stage_color(number)
        means, stds = [loss.mean for loss in losses], [loss.std for loss in losses]
        axes.errorbar(modules, means, stds, color=color, **style)
        labels.append(EndLabel(modules[-1], means[-1], network, color))
    deepest = max(module_of(t) for n in result.networks for t in result.terms(n, family))
    axes.set_xlim(0.7, deepest + 0.15)
    axes.set_xticks(range(1, deepest + 1))
    _chance(axes, result)
    label_ends(axes, labels)
    networks = ", ".join(result.networks)
    return to_svg(figure, name, f"{FAMILIES[family]}, loss over modules, of {networks}")


def combined_svg(result: InformationResult) -> str:
    """All charts over steps as one SVG file, a row for each family, a column for each network."""
    charts = [
        (f"{network}: {short}", over_steps(result, network, family, f"{family}-{i}"))
        if result.terms(network, family)
        else ("", None)
        for family, short in SHORT.items()
        for i, network in enumerate(result.networks)
    ]
    return standalone_svg(charts, len(result.networks))


def _canvas(result: InformationResult, x_label: str, letters: int) -> tuple[Figure, Axes]:
    """Empty axes with room for labels of so many letters at the right."""
    figure, axes = canvas(*WIDE, Margins(right=letters * LETTER + 18))
    grid(axes, x_label, f"loss ({result.config.estimator})")
    axes.yaxis.set_major_locator(ticks())
    return figure, axes


def _end_text(term: str, loss: float) -> str:
    return f"module {module_of(term)}{GAP}{decimals(loss)}"


def _chance(axes: Axes, result: InformationResult) -> None:
    """The line of chance, on a scale that all charts share."""
    losses = [result.chance, *(row.loss for row in result.rows)]
    bottom, top = min(0.0, *losses), max(losses)
    room = 0.05 * (top - bottom)
    axes.set_ylim(bottom - room * (bottom < 0), top + room)
    chance_line(axes, result.chance)
