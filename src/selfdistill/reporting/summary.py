"""What a run came to, in a sentence and in a few large figures."""

from html import escape
from statistics import median

from .formatting import (
    count,
    metric,
    percent,
    share,
    shown,
    thousands,
)
from .run_data import ExitEntry, RunData, stage

_NEAR = 0.01  # an exit this close to the whole network serves as well


def lede(contents: RunData) -> str:
    """The page's first sentence, as HTML."""
    named = {key: escape(str(contents.recipe.get(key, "?"))) for key in ("method", "model", "data")}
    how = f"Trained with <b>{named['method']}</b>"
    done, asked = len(contents.epochs), contents.recipe.get("epochs")
    if contents.score is None:
        return f"{how}: <b>{named['model']}</b> on <b>{named['data']}</b>, not judged yet."
    reached = percent(contents.score).replace(" ", "\u00a0")
    images = f"the {contents.split} images"
    said = f"{how}, <b>{named['model']}</b> "
    if contents.task.image_labels:
        said += f"gets {reached} of {images} of <b>{named['data']}</b> right"
    else:
        said += f"reaches {reached} {metric(contents)} on {images} of <b>{named['data']}</b>"
    said += _beside(contents) + "."
    if isinstance(asked, int) and done < asked:
        said += f" {done} of {asked} epochs are done."
    return said


def _beside(contents: RunData) -> str:
    """A clause on the best exit that costs less than the whole network."""
    exit_, full = best_cheaper(contents), contents.last
    if exit_ is None or full is None:
        return ""
    score, whole = exit_.score(contents.split), full.score(contents.split)
    assert score is not None, "only judged exits are compared"
    better = " even" if whole is not None and score > whole else ""
    part = share(exit_.macs / max(full.macs, 1))
    return (
        f"; {shown(exit_.name)}{better} reaches {percent(score)} with {part} of the multiply-adds"
    )


def cheaper(contents: RunData) -> list[tuple[float, ExitEntry]]:
    """Score and row of each judged exit that costs less than the whole network, cheapest first.

    The score is the one to choose by: of the validation images, if there are any.
    """
    full = contents.last
    if full is None:
        return []
    exits = (row for row in contents.exits if stage(row.name) and row.macs < full.macs)
    rows = sorted(exits, key=lambda row: row.macs)
    by = chooser(contents)
    return [(score, row) for row in rows if (score := row.score(by)) is not None]


def chooser(contents: RunData) -> str:
    """The split to choose exits by; what was chosen by test images could not be judged by them."""
    judged = all(row.score("validation") is not None for row in contents.exits)
    return "validation" if judged else contents.split


def best_cheaper(contents: RunData) -> ExitEntry | None:
    """The best of them on the images to choose by; of equals the cheapest."""
    return max(cheaper(contents), key=lambda pair: pair[0], default=(0.0, None))[1]


def cards(contents: RunData) -> str:
    """The figures to remember, as HTML."""
    made = [*_score_card(contents), *_exit_cards(contents), *_time_card(contents)]
    items = "".join(
        f'<div class="card"><dt>{label}</dt><dd class="figure">{figure}</dd>'
        f'<dd class="beside">{beside}</dd></div>'
        for label, figure, beside in made
    )
    return f'<dl class="cards">{items}</dl>' if made else ""


Card = tuple[str, str, str]  # label, figure, what stands beside it


def _score_card(contents: RunData) -> list[Card]:
    if contents.score is None:
        return []
    full = contents.last
    cost = f"{count(full.parameters)} parameters, {count(full.macs)} multiply-adds" if full else ""
    label = f"Full network, {contents.split} {metric(contents)}"
    return [(label, percent(contents.score), cost)]


def _exit_cards(contents: RunData) -> list[Card]:
    best, full = best_cheaper(contents), contents.last
    if best is None or full is None or contents.score is None:
        return []
    goal = (full.score(chooser(contents)) or 0.0) - _NEAR
    near = [row for score, row in cheaper(contents) if score >= goal]
    found = [("Best cheaper exit", best)]
    if near and near[0] is not best:
        found.append(("Cheapest within a point", near[0]))
    return [_exit_card(label, row, full, contents.split) for label, row in found]


def _exit_card(label: str, row: ExitEntry, full: ExitEntry, split: str) -> Card:
    costs = (row.macs / max(full.macs, 1), row.parameters / max(full.parameters, 1))
    beside = "{} of the multiply-adds, {} of the parameters".format(*map(share, costs))
    return (f"{label}: {escape(shown(row.name))}", percent(row.score(split) or 0), beside)


def _time_card(contents: RunData) -> list[Card]:
    rates = [step["images_per_second"] for step in contents.steps if "images_per_second" in step]
    if not contents.epochs:
        return []
    steps = f"{thousands(contents.epochs[-1]['step'])} steps"
    rate = f", {count(median(rates))} images a second" if rates else ""
    return [("Epochs of training", str(len(contents.epochs)), steps + rate)]
