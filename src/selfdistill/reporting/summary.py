"""The best exits of a run, and its most important numbers as cards."""

from statistics import median

from ..core import STUDENT
from ..records import split_name
from ..records.exit_scores import ExitScore
from ..tasks.metric_names import shown_metric
from .elements import Card
from .formatting import count, exit_number, percent, share, shown, thousands
from .run_data import RunData

_NEAR = 0.01  # an exit this close to the full network serves as well


def cheaper_exits(run: RunData) -> list[tuple[float, ExitScore]]:
    """(score, exit) of each evaluated exit that costs less than the full network, cheapest first.

    The score is that on the split to choose by.
    """
    full = run.student
    if full is None:
        return []
    exits = [row for row in run.exits if exit_number(row.predictor) and row.macs < full.macs]
    exits.sort(key=lambda row: row.macs)
    return [(s, row) for row in exits if (s := row.score(run.choosing_split)) is not None]


def best_cheaper_exit(run: RunData) -> ExitScore | None:
    """The best of them; of equal ones the cheapest."""
    return max(cheaper_exits(run), key=lambda pair: pair[0], default=(0.0, None))[1]


def cards(run: RunData) -> list[Card]:
    """The most important numbers of a run."""
    return [*_score_card(run), *_exit_cards(run), *_time_card(run)]


def _score_card(run: RunData) -> list[Card]:
    if run.score is None:
        return []
    full = run.student
    cost = f"{count(full.parameters)} parameters, {count(full.macs)} multiply-adds" if full else ""
    if run.recipe.get("quantize", "off") != "off":
        cost += ", int8 simulated"
    label = f"{shown(STUDENT).capitalize()}, {split_name(run.split)} {shown_metric(run.metric)}"
    return [Card(label, percent(run.score), cost)]


def _exit_cards(run: RunData) -> list[Card]:
    best, full = best_cheaper_exit(run), run.student
    if best is None or full is None or run.score is None:
        return []
    goal = (full.score(run.choosing_split) or 0.0) - _NEAR
    near = [row for score, row in cheaper_exits(run) if score >= goal]
    labeled = [("Best cheaper exit", best)]
    if near and near[0] is not best:
        labeled.append(("Cheapest within a point", near[0]))
    return [_exit_card(label, row, full, run.split) for label, row in labeled]


def _exit_card(label: str, row: ExitScore, full: ExitScore, split: str) -> Card:
    macs, parameters = row.macs / max(full.macs, 1), row.parameters / max(full.parameters, 1)
    details = f"{share(macs)} of the multiply-adds, {share(parameters)} of the parameters"
    return Card(f"{label}: {shown(row.predictor)}", percent(row.score(split) or 0), details)


def _time_card(run: RunData) -> list[Card]:
    if not run.epochs:
        return []
    rates = [step["images_per_second"] for step in run.steps if "images_per_second" in step]
    steps = f"{thousands(run.epochs[-1]['step'])} steps"
    rate = f", {count(median(rates))} images a second" if rates else ""
    return [Card("Epochs of training", str(len(run.epochs)), steps + rate)]
