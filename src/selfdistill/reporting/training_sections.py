"""The sections on how a run was trained: information, loss terms, optimizer, recipe."""

from functools import partial
from html import escape

import numpy as np

from . import plots
from .curves import Curve, curve, families, total
from .formatting import decimals
from .layout import figure, folded, many, note, pair, section
from .run_data import RunData
from .tables import keys_table

CHANCE = 2 * float(np.log(2))  # the Jensen-Shannon loss of a critic that knows nothing


def information(contents: RunData) -> str:
    """Between the stages, by the critics of methods that have them."""
    found = families(contents, "monitors")
    options = contents.recipe.get("options", {})
    own = [options, *(part for part in options.values() if isinstance(part, dict))]  # of A+B
    jensen_shannon = all(part.get("estimator", "jsd") == "jsd" for part in own)
    draw = partial(
        plots.lines, value=decimals, zero=True, chance=CHANCE if jensen_shannon else None
    )
    said = {
        "mutual": (
            "Mutual information with the last feature",
            f"How much an exit's feature tells about {_whose(contents)}. ",
        ),
        "self": (
            "Self-information",
            "How much an exit's feature tells about itself: its places about their mean. ",
        ),
    }
    how = "Lower loss is more information"
    how += "; on the dashed line the critic only guesses." if jensen_shannon else "."
    figures = [
        figure(draw(curves, family.replace("/", "-"), "loss"), title, what + how)
        for family, curves in found.items()
        for title, what in [said.get(_measure(family), ("", ""))]
        if title
    ]
    return section("Information between stages", pair(figures))


def _measure(family: str) -> str:
    """Which of the two a family is of the student's, in joined methods, too, or nothing."""
    *where, term = family.split("/")
    others = "score" in where or any(part.startswith("peer") for part in where)
    return term if term in ("mutual", "self") and not others else ""


def _whose(contents: RunData) -> str:
    if contents.recipe.get("teacher"):
        return "the teacher's last feature"
    several = any(row.name.startswith("peer") for row in contents.exits)
    return "the other networks' last features" if several else "the network's last feature"


def losses(contents: RunData) -> str:
    """Every term of the loss."""
    found = families(contents, "losses")
    if not found:
        return ""
    said = "Every term as it enters the sum that training lowers, its weight included. "
    said += "Each panel has its own scale. " if len(found) > 1 else ""
    whole = total(contents)
    panels = {"total": [whole], **found} if len(found) > 1 and len(whole.x) else found
    figures = [
        figure(_small(curves, f"loss-{place}"), escape(family))
        for place, (family, curves) in enumerate(panels.items())
    ]
    return section("Loss terms", note(said), many(figures))


def _small(curves: list[Curve], name: str, label: str = "") -> str:
    return plots.lines(curves, name, label, size=plots.NARROW, named=len(curves) > 1)


def optimizer(contents: RunData) -> str:
    """Learning rate and gradient."""
    figures = []
    for key, title in (("lr", "Learning rate"), ("grad_norm", "Norm of the gradient")):
        drawn = curve(title.lower(), contents.steps, lambda step, k=key: step.get(k))  # type: ignore[misc]
        if len(drawn.x) > 1:
            figures.append(figure(_small([drawn], key.replace("_", "-")), title))
    said = "A norm that jumps or grows without end says that the learning rate is too high."
    return section("Optimizer", note(said), many(figures)) if figures else ""


def recipe(contents: RunData) -> str:
    """All that made the run."""
    flat = {key: value for key, value in contents.recipe.items() if key != "options"}
    options = contents.recipe.get("options", {})
    half = (len(flat) + 1) // 2
    columns = [dict(list(flat.items())[:half]), dict(list(flat.items())[half:])]
    tables = [
        keys_table(part, title) for part, title in zip(columns, ("Run", "\u00a0"), strict=True)
    ]
    if options:
        tables.append(keys_table(options, f"Options of {contents.recipe.get('method', '')}"))
    return section("Recipe", f'<div class="keys">{"".join(tables)}</div>')


def monitors(contents: RunData) -> str:
    """What is seldom asked for, folded away: further monitors, and where the run was made."""
    parts = []
    further = {f: c for f, c in families(contents, "monitors").items() if not _measure(f)}
    if further:
        figures = [
            figure(_small(curves, f"monitor-{place}"), escape(family))
            for place, (family, curves) in enumerate(further.items())
        ]
        parts.append(folded("Further monitors", many(figures)))
    if contents.environment:
        command = escape(str(contents.environment.get("command", "")))
        rest = {key: value for key, value in contents.environment.items() if key != "command"}
        shown_command = f"<p><code>{command}</code></p>" if command else ""
        table = f'<div class="keys">{keys_table(rest)}</div>'
        parts.append(folded("Command and environment", shown_command + table))
    return "\n".join(parts)
