"""What a measurement leaves behind: a table, a chart, and a page that shows both."""

import shlex
import sys
from pathlib import Path

from ..core import ResourceError, RunBusyError, write_atomically
from ..reporting.charts.style import Chart, palette
from ..reporting.elements import Cell, Row, Table
from ..reporting.formatting import decimals
from ..reporting.rendering import render
from .charts import FAMILIES, combined_svg, module_of, num_colors, over_depth, over_steps
from .results import InformationResult, MeanStd

FILES = ("information.html", "information.svg", "information.csv")
_EXPLANATIONS = {
    "mutual": "How much the cells of a module's feature map tell of the last feature.",
    "self": "How much the cells of a module's feature map tell of their own mean.",
}


def check_free(directory: Path) -> None:
    """Raises `RunBusyError` if there is a measurement in this directory already."""
    if any((directory / name).exists() for name in FILES):
        raise RunBusyError(f"{directory} holds a measurement already; choose another --out")


def save(result: InformationResult, folder: str | Path) -> list[Path]:
    """Write page, chart and table into a folder, which is made if it does not exist.

    Raises:
        RunBusyError: there is a measurement in it already.
        ResourceError: the folder cannot be made or written.
    """
    directory = Path(folder)
    check_free(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{directory} cannot be made: {error.strerror or error}") from error
    texts = (page(result), combined_svg(result), result.to_csv())
    return [write_atomically(directory / n, text) for n, text in zip(FILES, texts, strict=True)]


def page(result: InformationResult) -> str:
    """The whole document."""
    networks = result.networks
    return render(
        "information.html.j2",
        name=" · ".join(networks),
        colors=palette(num_colors(result)),
        chance=result.chance,
        losses=_losses_table(result),
        several_seeds=any(result.final(n, t).seeds > 1 for n in networks for t in result.terms(n)),
        jensen_shannon=result.config.estimator == "jsd",
        depths=_depth_charts(result),
        families=[
            (title, _EXPLANATIONS[family], _step_charts(result, family))
            for family, title in FAMILIES.items()
        ],
        setup=_setup(result),
    )


def _depth_charts(result: InformationResult) -> list[tuple[str, Chart]]:
    """The networks side by side, where there are several."""
    if len(result.networks) < 2:
        return []
    return [
        (title, over_depth(result, family, f"depth-{family}"))
        for family, title in FAMILIES.items()
        if all(result.terms(network, family) for network in result.networks)
    ]


def _step_charts(result: InformationResult, family: str) -> list[tuple[str, Chart]]:
    return [
        (network, over_steps(result, network, family, f"{family}-{i}"))
        for i, network in enumerate(result.networks)
        if result.terms(network, family)
    ]


def _losses_table(result: InformationResult) -> Table:
    rows = [
        Row([named(term), *(_cell(result, network, term) for network in result.networks)])
        for term in ordered(result)
    ]
    return Table(["held-out loss", *result.networks], rows)


def ordered(result: InformationResult) -> list[str]:
    """The terms of all networks: MI before SI, shallow before deep."""
    terms = {term for network in result.networks for term in result.terms(network)}
    families = list(FAMILIES)
    return sorted(terms, key=lambda term: (families.index(term.split("/")[0]), module_of(term)))


def named(term: str) -> str:
    """A term for people: "MI of module 1"."""
    return f"{'MI' if term.startswith('mutual') else 'SI'} of module {module_of(term)}"


def amount(value: MeanStd) -> str:
    """A loss with its standard deviation, where there are several seeds."""
    spread = f" ± {decimals(value.std)}" if value.seeds > 1 else ""
    return f"{decimals(value.mean)}{spread}"


def _cell(result: InformationResult, network: str, term: str) -> str | Cell:
    if term not in result.terms(network):
        return "–"
    value = result.final(network, term)
    if result.config.estimator != "jsd":
        return amount(value)
    share = min(1.0, max(0.0, 1 - value.mean / result.chance))
    return Cell(amount(value), title=f"{100 * share:.0f} % of what can be", bar=share)


def _setup(result: InformationResult) -> dict[str, object]:
    """What it takes to make the numbers again."""
    plan = result.config
    return {
        "networks": "trained along" if plan.trainable else "frozen, in evaluation mode",
        "held-out images": result.held_out,
        "critic": f"{plan.critic}, width {plan.width or 'its own'}",
        "estimator": plan.estimator,
        "steps": f"{plan.steps} of Adam, {plan.batch_size} images, rate {plan.lr:g} falling to 0",
        "seeds": ", ".join(map(str, plan.seeds)),
        **{f"taps of {name}": ", ".join(taps) for name, taps in result.taps.items()},
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
