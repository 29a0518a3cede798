"""What a measurement leaves behind: a table, a picture, and a page that shows both."""

import shlex
import sys
from html import escape
from pathlib import Path

from ..core import ResourceError, RunBusyError
from ..engine.run_directory import RunDirectory
from ..reporting.figure_style import palette
from ..reporting.formatting import decimals
from ..reporting.layout import (
    document,
    figure,
    folded,
    note,
    pair,
    section,
)
from .charts import (
    FAMILIES,
    colors_needed,
    combined_svg,
    module_of,
    over_depth,
    over_steps,
)
from .results import InformationResult, MeanStd

FILES = ("information.html", "information.svg", "information.csv")


def check_free(place: Path) -> None:
    """Raises `RunBusyError` if there is a measurement in this folder already."""
    if any((place / name).exists() for name in FILES):
        raise RunBusyError(f"{place} holds a measurement already; choose another --out")


def save(found: InformationResult, folder: str | Path) -> list[Path]:
    """Write page, picture and table into a folder, which is made if it is not there.

    Raises:
        RunBusyError: there is a measurement in it already.
        ResourceError: the folder cannot be made or written.
    """
    place = Path(folder)
    check_free(place)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{place} cannot be made: {error.strerror or error}") from error
    texts = (page(found), combined_svg(found), found.to_csv())
    return [RunDirectory(place).write(*file) for file in zip(FILES, texts, strict=True)]


def page(found: InformationResult) -> str:
    """The whole document."""
    body = "\n".join([_compared(found), *(_family(found, f) for f in FAMILIES), _how(found)])
    header = f'<p class="lede">{_lede(found)}</p>'
    name = " · ".join(found.networks)
    return document("information", name, header, body, palette(colors_needed(found)))


def _lede(found: InformationResult) -> str:
    what = "Critics were trained to tell which features belong to one image, "
    what += "and judged on images held out from them. Lower loss is more information; at "
    return f"{what}{decimals(found.chance)} a critic only guesses."


def _compared(found: InformationResult) -> str:
    """The numbers, and the networks side by side where there are several."""
    pictures = []
    if len(found.networks) > 1:
        pictures = [
            figure(
                over_depth(found, family, f"depth-{family}"),
                title,
                "The last held-out losses, module by module.",
            )
            for family, title in FAMILIES.items()
            if all(found.terms(network, family) for network in found.networks)
        ]
    return section(
        "InformationResult of every module", _table(found), note(_share(found)), pair(pictures)
    )


def _share(found: InformationResult) -> str:
    several = any(found.final(n, t).seeds > 1 for n in found.networks for t in found.terms(n))
    spread = "Mean ± standard deviation over the seeds. " if several else ""
    if found.config.estimator != "jsd":
        lies = "What a loss lies below chance is a lower bound of the information in nats."
        return spread + lies
    return (
        f"{spread}What a loss lies below chance is twice the Jensen-Shannon divergence, in nats, "
        "between features of one image and of two, as far as the critic finds it. The bar is its "
        "share of the most that can be, 2 ln 2."
    )


def _table(found: InformationResult) -> str:
    heads = "".join(f'<th class="number" scope="col">{escape(n)}</th>' for n in found.networks)
    rows = []
    for term in ordered(found):
        cells = "".join(f'<td class="number">{_cell(found, n, term)}</td>' for n in found.networks)
        rows.append(f'<tr><th scope="row">{named(term)}</th>{cells}</tr>')
    return (
        f'<div class="wide"><table><thead><tr><th scope="col">held-out loss</th>{heads}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def ordered(found: InformationResult) -> list[str]:
    """The terms of all networks: MI before SI, shallow before deep."""
    terms = {term for network in found.networks for term in found.terms(network)}
    families = list(FAMILIES)
    return sorted(terms, key=lambda term: (families.index(term.split("/")[0]), module_of(term)))


def named(term: str) -> str:
    """A term for people: "MI of module 1"."""
    return f"{'MI' if term.startswith('mutual') else 'SI'} of module {module_of(term)}"


def amount(value: MeanStd) -> str:
    """A loss with its deviation, where several seeds show one."""
    spread = f" ± {decimals(value.std)}" if value.seeds > 1 else ""
    return f"{decimals(value.mean)}{spread}"


def _cell(found: InformationResult, network: str, term: str) -> str:
    if term not in found.terms(network):
        return "–"
    value = found.final(network, term)
    if found.config.estimator != "jsd":
        return amount(value)
    share = min(1.0, max(0.0, 1 - value.mean / found.chance))
    bar = (
        f'<span class="bar"><i style="width:{100 * share:.0f}%;background:var(--muted)"></i></span>'
    )
    return f'<span title="{100 * share:.0f} % of what can be">{amount(value)}</span>{bar}'


def _family(found: InformationResult, family: str) -> str:
    whose = {
        "mutual": "How much the cells of a module's feature map tell of the last feature.",
        "self": "How much the cells of a module's feature map tell of their own mean.",
    }
    figures = [
        figure(over_steps(found, network, family, f"{family}-{place}"), escape(network))
        for place, network in enumerate(found.networks)
        if found.terms(network, family)
    ]
    lines = "Strong lines are losses on held-out images, faint ones on training images."
    return section(FAMILIES[family], note(f"{whose[family]} {lines}"), pair(figures))


def _how(found: InformationResult) -> str:
    """What one needs to know to make the numbers again."""
    plan = found.config
    moved = "trained along" if plan.trainable else "frozen, in evaluation mode"
    seeds = ", ".join(map(str, plan.seeds))
    facts = {
        "networks": moved,
        "held-out images": found.held_out,
        "critic": f"{plan.critic}, width {plan.width or 'its own'}",
        "estimator": found.config.estimator,
        "steps": f"{plan.steps} of Adam, {plan.batch_size} images, rate {plan.lr:g} falling to 0",
        "seeds": seeds,
        **{f"taps of {name}": ", ".join(taps) for name, taps in found.taps.items()},
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in facts.items())
    return folded("How it was measured", f'<div class="keys"><table>{rows}</table></div>')
