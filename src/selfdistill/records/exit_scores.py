"""`exits.csv`: how good each predictor of a run is, and what it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from torch import Tensor

from ..core import STUDENT, Method
from ..costs.macs import network_cost
from .csv_text import csv_rows, csv_text, number, read_record

FILE = "exits.csv"


@dataclass(frozen=True)
class ExitScore:
    """One predictor; scores are fractions, None where a split has no images.

    Attributes:
        predictor: its name in `Method.predictors`.
        parameters, macs: of the network that this predictor alone needs.
        val_score, test_score: by the task's primary metric.
        metric: the name of that metric: "accuracy", "miou", "map".
    """

    predictor: str
    parameters: int
    macs: int
    val_score: float | None
    test_score: float | None
    metric: str = "accuracy"

    def score(self, split: str) -> float | None:
        """The score on "val" or "test"."""
        return self.test_score if split == "test" else self.val_score


def score_summary(rows: Sequence[ExitScore]) -> str:
    """The student's score and that of the best exit, a clause."""
    split = "test" if any(row.test_score is not None for row in rows) else "val"
    scores = {row.predictor: score for row in rows if (score := row.score(split)) is not None}
    if STUDENT not in scores:
        return "without scores"
    summary = f"{split} {rows[0].metric}: student {scores[STUDENT]:.1%}"
    exits = [name for name in scores if name.startswith("exit")]
    if not exits:
        return summary
    best = max(exits, key=scores.__getitem__)
    macs = {row.predictor: row.macs for row in rows}
    share = macs[best] / max(1, macs[STUDENT])
    return f"{summary}, best exit {best} {scores[best]:.1%} at {share:.0%} of its multiply-adds"


Scores = Mapping[str, Mapping[str, float]]


def score_exits(
    method: Method, example: Tensor, primary_metric: str, val: Scores | None, test: Scores | None
) -> list[ExitScore]:
    """One record for each predictor, in the method's order.

    Args:
        method: the trained method.
        example: an input of the network.
        primary_metric: the metric that counts.
        val, test: {predictor: {metric: value}}, or None.
    """
    rows = []
    for name, network in method.predictors().items():
        cost = network_cost(network, example)
        val_score, test_score = (s[name][primary_metric] if s else None for s in (val, test))
        rows.append(ExitScore(name, *cost, val_score, test_score, primary_metric))
    return rows


def to_csv(rows: Sequence[ExitScore]) -> str:
    """The rows as csv text with a header, which names the metric."""
    metric = rows[0].metric if rows else ExitScore.metric
    header = ["predictor", "parameters", "macs", f"val_{metric}", f"test_{metric}"]
    return csv_text(header, (astuple(row)[:-1] for row in rows))


def from_csv(text: str) -> list[ExitScore]:
    """The rows that `to_csv` wrote.

    Raises:
        ValueError: it wrote something else.
    """
    header, rows = csv_rows(text)
    metric = header[3].removeprefix("val_")
    if header != ["predictor", "parameters", "macs", f"val_{metric}", f"test_{metric}"]:
        raise ValueError("its columns are others")
    return [
        ExitScore(predictor, int(parameters), int(macs), number(val), number(test), metric)
        for predictor, parameters, macs, val, test in rows
    ]


def read_exit_scores(run_dir: Path) -> list[ExitScore]:
    """The predictors of a run; none while it is not finished.

    Raises:
        ArtifactError: the table cannot be read.
    """
    return read_record(run_dir / FILE, from_csv, "table of exits") or []
