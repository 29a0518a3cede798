"""Charts of how a run was trained: scores, loss terms, information, optimizer."""

from functools import partial
from typing import NamedTuple

from ..tasks.metric_names import shown_metric
from .charts.labels import CHANCE
from .charts.lines import lines
from .charts.style import NARROW, Chart
from .curves import Curve, curve, families, scores, total
from .formatting import decimals, percent
from .run_data import RunData

MANY_EPOCHS = 10  # from here on the first epochs are cut off


class TitledChart(NamedTuple):
    """A chart and the title above it, which may be the name of its loss terms."""

    title: str
    chart: Chart


def score_chart(run: RunData) -> Chart | None:
    """The validation score of every predictor over epochs."""
    curves = [c for c in scores(run) if len(c.x) > 1]  # one epoch's scores stand in the table
    if not curves:
        return None
    late, label = len(run.epochs) >= MANY_EPOCHS, f"validation {shown_metric(run.metric)}"
    return lines(curves, run.metric, label, x_label="epoch", value=percent, late=late)


def information_charts(run: RunData) -> dict[str, Chart]:
    """Losses of the student's critics by family, which ends in "mutual" or "self"."""
    chance = CHANCE if is_jensen_shannon(run) else None
    draw = partial(lines, value=decimals, zero=True, chance=chance)
    return {
        family: draw(curves, family.replace("/", "-"), "loss")
        for family, curves in families(run, "monitors").items()
        if _is_information(family)
    }


def is_jensen_shannon(run: RunData) -> bool:
    """Whether all critics estimate the Jensen-Shannon divergence."""
    options = run.recipe.get("options", {})
    joined = [part for part in options.values() if isinstance(part, dict)]  # of A+B
    return all(part.get("estimator", "jsd") == "jsd" for part in (options, *joined))


def _is_information(family: str) -> bool:
    """Whether these are losses of the student's critics, joined methods included."""
    *parents, term = family.split("/")
    others = "score" in parents or any(parent.startswith("peer") for parent in parents)
    return term in ("mutual", "self") and not others


def loss_charts(run: RunData) -> list[TitledChart]:
    """Every loss term, and their total where there are several families."""
    groups = families(run, "losses")
    sum_ = total(run)
    if len(groups) > 1 and len(sum_.x) > 1:
        groups = {"total": [sum_], **groups}
    return _small_charts(groups, "loss")


def monitor_charts(run: RunData) -> list[TitledChart]:
    """Monitors that have no chart of their own."""
    groups = families(run, "monitors")
    return _small_charts({f: c for f, c in groups.items() if not _is_information(f)}, "monitor")


def _small_charts(groups: dict[str, list[Curve]], prefix: str) -> list[TitledChart]:
    return [
        TitledChart(family, _small(curves, f"{prefix}-{i}"))
        for i, (family, curves) in enumerate(groups.items())
    ]


def _small(curves: list[Curve], name: str) -> Chart:
    return lines(curves, name, "", size=NARROW, named=len(curves) > 1)


def optimizer_charts(run: RunData) -> list[TitledChart]:
    """Learning rate and gradient."""
    charts = []
    for key, title in (("lr", "Learning rate"), ("grad_norm", "Norm of the gradient")):
        drawn = curve(title.lower(), run.steps, lambda step, k=key: step.get(k))  # type: ignore[misc]
        if len(drawn.x) > 1:
            charts.append(TitledChart(title, _small([drawn], key.replace("_", "-"))))
    return charts
