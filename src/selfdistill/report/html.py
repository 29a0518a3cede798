"""The page `report.html`: one file, no scripts, nothing loaded from anywhere."""

from functools import partial
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from ..engine.run_directory import RunDirectory
from . import plots
from .canvas import palette
from .contents import Confusion, Contents, read, stage
from .curves import Curve, accuracies, curve, families, total
from .heatmap import FEW, confusion_map
from .summary import cards, lede
from .tables import exits_table, keys_table, pairs_table
from .words import decimals, percent, thousands

CHANCE = 2 * float(np.log(2))  # the Jensen-Shannon loss of a critic that knows nothing


def write_report(run: RunDirectory) -> Path:
    """Write `report.html` into a run's directory, from the files that lie there.

    What a run does not have (validation, exits, a confusion matrix) has no section.

    Raises:
        ConfigError: there is no run here.
        ArtefactError: a table in the directory cannot be read.
        ResourceError: the page cannot be written.
    """
    return run.write("report.html", page(read(run)))


def page(contents: Contents) -> str:
    """The whole document."""
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    makers = (_exits, _epochs, _information, _losses, _optimiser, _confusion, _recipe, _monitors)
    sections = "\n".join(part for maker in makers if (part := maker(contents)))
    name = escape(contents.name)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} – selfdistill</title>
<style>
{style}{_palette(contents.stages)}</style>
</head>
<body>
<header>
<p class="kicker">selfdistill training report</p>
<h1>{name}</h1>
<p class="lede">{lede(contents)}</p>
{cards(contents)}
</header>
<main>
{sections}
</main>
</body>
</html>
"""


def _palette(stages: int) -> str:
    light, dark = (
        " ".join(f"--exit-{i}: {colour};" for i, colour in enumerate(colours, 1))
        for colours in palette(stages).values()
    )
    theme = "@media screen and (prefers-color-scheme: dark)"
    return f":root {{ {light} }}\n{theme} {{ :root {{ {dark} }} }}\n"


def _section(title: str, *parts: str) -> str:
    """A section, or nothing if it would be empty."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>" if body else ""


def _figure(svg: str, title: str, caption: str = "") -> str:
    said = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure><h3>{title}</h3>{svg}{said}</figure>"


def _exits(contents: Contents) -> str:
    if not contents.exits:
        return ""
    title, note = "Accuracy and cost", ""
    if len(contents.exits) > 1:
        title += " of every exit" if _has_exits(contents) else " of every network"
        note = "Multiply-adds and parameters are those of the network that is exported for this row"
        note += ": for an exit the stages up to it and its head." if _has_exits(contents) else "."
    return _section(title, exits_table(contents), _note(note), _note(_certainty(contents)))


def _has_exits(contents: Contents) -> bool:
    if not contents.exits:  # the run was killed before it was judged
        return contents.stages > 0
    return any(stage(row.name) for row in contents.exits)


def _note(text: str) -> str:
    return f'<p class="note">{text}</p>' if text else ""


def _certainty(contents: Contents) -> str:
    """How far apart two accuracies must be to mean something, if the number of images is known."""
    split, images = judged_by(contents)
    if not images or contents.accuracy is None:
        return ""
    error = 2 * np.sqrt(contents.accuracy * (1 - contents.accuracy) / images)
    if error == 0:
        return ""
    return (
        f"With {thousands(images)} {split} images, the full network's accuracy is known to about "
        f"± {100 * error:.1f} points; smaller differences may be chance."
    )


def judged_by(contents: Contents) -> tuple[str, int]:
    """The images of the confusion matrix: which they are, told by the accuracy, and how many."""
    if contents.confusion is None:
        return "", 0
    images = int(contents.confusion.counts.sum())
    right = float(np.trace(contents.confusion.counts)) / max(images, 1)
    for split in ("test", "validation"):
        score = contents.last.score(split) if contents.last else None
        if score is not None and abs(score - right) < 1e-4:
            return split, images
    return "", images


def _epochs(contents: Contents) -> str:
    if not contents.epochs:
        return _section(
            "Training", "<p>No epoch was finished, so there is nothing to show yet.</p>"
        )
    curves = [c for c in accuracies(contents) if len(c.x)]
    figures = [_accuracy_figure(curves, len(contents.epochs))] if curves else []
    judged = [row for row in contents.exits if row.score(contents.split) is not None]
    if len(judged) > 1:
        drawn = plots.cost_scatter(judged, contents.split, "cost")
        caption = "Up is more accurate, left is cheaper: an exit beats those to its lower right."
        figures.append(_figure(drawn, "Accuracy against cost", caption))
    return _section(
        "Accuracy, and what depth buys" if _has_exits(contents) else "Accuracy", _pair(figures)
    )


def _accuracy_figure(curves: list[Curve], epochs: int) -> str:
    late = epochs >= 10
    drawn = plots.lines(
        curves, "accuracy", "validation accuracy", x_label="epoch", value=percent, late=late
    )
    caption = "After each epoch, on images that were not trained on."
    if late:
        caption += " The lowest tenth of the points is cut off, to show how the exits end."
    return _figure(drawn, "Validation accuracy over epochs", caption)


def _pair(figures: list[str]) -> str:
    return f'<div class="pair">{"".join(figures)}</div>' if figures else ""


def _information(contents: Contents) -> str:
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
        _figure(draw(curves, family.replace("/", "-"), "loss"), title, what + how)
        for family, curves in found.items()
        for title, what in [said.get(_measure(family), ("", ""))]
        if title
    ]
    return _section("Information between stages", _pair(figures))


def _measure(family: str) -> str:
    """Which of the two a family is of the student's, in joined methods, too, or nothing."""
    *where, term = family.split("/")
    others = "score" in where or any(part.startswith("peer") for part in where)
    return term if term in ("mutual", "self") and not others else ""


def _whose(contents: Contents) -> str:
    if contents.recipe.get("teacher"):
        return "the teacher's last feature"
    several = any(row.name.startswith("peer") for row in contents.exits)
    return "the other networks' last features" if several else "the network's last feature"


def _losses(contents: Contents) -> str:
    found = families(contents, "losses")
    if not found:
        return ""
    note = "Every term as it enters the sum that training lowers, its weight included. "
    note += "Each panel has its own scale. " if len(found) > 1 else ""
    whole = total(contents)
    panels = {"total": [whole], **found} if len(found) > 1 and len(whole.x) else found
    figures = [
        _figure(_small(curves, f"loss-{place}"), escape(family))
        for place, (family, curves) in enumerate(panels.items())
    ]
    return _section("Loss terms", _note(note), _many(figures))


def _small(curves: list[Curve], name: str, label: str = "") -> str:
    return plots.lines(curves, name, label, size=plots.NARROW, named=len(curves) > 1)


def _many(figures: list[str]) -> str:
    return f'<div class="many">{"".join(figures)}</div>'


def _optimiser(contents: Contents) -> str:
    figures = []
    for key, title in (("lr", "Learning rate"), ("grad_norm", "Norm of the gradient")):
        drawn = curve(title.lower(), contents.steps, lambda step, k=key: step.get(k))  # type: ignore[misc]
        if len(drawn.x) > 1:
            figures.append(_figure(_small([drawn], key.replace("_", "-")), title))
    note = "A norm that jumps or grows without end says that the learning rate is too high."
    return _section("Optimiser", _note(note), _many(figures)) if figures else ""


def _confusion(contents: Contents) -> str:
    if contents.confusion is None:
        return ""
    split, images = judged_by(contents)
    drawn = _figure(
        confusion_map(contents.confusion, "confusion"),
        "Which class is taken for which",
        _confusion_caption(contents.confusion),
    )
    pairs = pairs_table(contents.confusion) or "<p>There are none.</p>"
    table = f"<figure><h3>Most frequent mistakes</h3>{pairs}</figure>"
    note = f"The full network on {thousands(images)} {split} images."
    return _section("Confusion", _note(note), _pair([drawn, table]))


def _confusion_caption(confusion: Confusion) -> str:
    hit, miss = (f'<i class="swatch square {kind}"></i>' for kind in ("hit", "miss"))
    text = f"Rows are the true classes. {hit}right, {miss}mistaken; stronger is a larger part of "
    text += "the row. Mistakes are shown stronger than hits, or the rare ones would not be seen."
    if len(confusion.classes) > FEW:
        text += " Classes are numbered in their own order, from 0."
    return text


def _recipe(contents: Contents) -> str:
    flat = {key: value for key, value in contents.recipe.items() if key != "options"}
    options = contents.recipe.get("options", {})
    half = (len(flat) + 1) // 2
    columns = [dict(list(flat.items())[:half]), dict(list(flat.items())[half:])]
    tables = [
        keys_table(part, title) for part, title in zip(columns, ("Run", "\u00a0"), strict=True)
    ]
    if options:
        tables.append(keys_table(options, f"Options of {contents.recipe.get('method', '')}"))
    return _section("Recipe", f'<div class="keys">{"".join(tables)}</div>')


def _monitors(contents: Contents) -> str:
    """What is seldom asked for, folded away: further monitors, and where the run was made."""
    parts = []
    further = {f: c for f, c in families(contents, "monitors").items() if not _measure(f)}
    if further:
        figures = [
            _figure(_small(curves, f"monitor-{place}"), escape(family))
            for place, (family, curves) in enumerate(further.items())
        ]
        parts.append(_folded("Further monitors", _many(figures)))
    if contents.environment:
        command = escape(str(contents.environment.get("command", "")))
        rest = {key: value for key, value in contents.environment.items() if key != "command"}
        shown_command = f"<p><code>{command}</code></p>" if command else ""
        table = f'<div class="keys">{keys_table(rest)}</div>'
        parts.append(_folded("Command and environment", shown_command + table))
    return "\n".join(parts)


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n{body}\n</details>"
