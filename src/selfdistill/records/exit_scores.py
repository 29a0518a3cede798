"""The table of a run's predictors: how good each is, and what it costs."""

import csv
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ..core import Method
from ..costs.macs import network_cost
from .csv_text import csv_text


class ExitScore(NamedTuple):
    """One predictor; scores are fractions, None where there was nothing to judge by.

    Attributes:
        metric: what the scores are, the task's primary_metric: "accuracy", "miou", "map".
    """

    predictor: str
    parameters: int
    macs: int
    val_score: float | None
    test_score: float | None
    metric: str = "accuracy"


Scores = Mapping[str, Mapping[str, float]]


def score_exits(
    method: Method, example: Tensor, primary_metric: str, val: Scores | None, test: Scores | None
) -> list[ExitScore]:
    """One row a predictor, in the method's order.

    Args:
        method: the trained method.
        example: an input of the network.
        primary_metric: the metric that counts.
        val, test: {predictor: {metric: value}}, or None.
    """
    rows = []
    for name, network in method.predictors().items():
        spent = network_cost(network, example)
        left, right = (part[name][primary_metric] if part else None for part in (val, test))
        rows.append(ExitScore(name, spent.parameters, spent.macs, left, right, primary_metric))
    return rows


def to_csv(rows: list[ExitScore]) -> str:
    """The rows as csv text with a header, which names the metric."""
    metric = rows[0].metric if rows else ExitScore._field_defaults["metric"]
    header = ["predictor", "parameters", "macs", f"val_{metric}", f"test_{metric}"]
    return csv_text(header, (row[:5] for row in rows))


def from_csv(text: str) -> list[ExitScore]:
    """The rows that `to_csv` wrote."""
    reader = csv.reader(io.StringIO(text))
    metric = next(reader)[3].removeprefix("val_")
    return [
        ExitScore(
            predictor,
            int(parameters),
            int(macs),
            float(val) if val else None,
            float(test) if test else None,
            metric,
        )
        for predictor, parameters, macs, val, test in reader
    ]


Tables = Mapping[str, Mapping[str, Tensor]]


def calibration_csv(tables: Tables) -> str:
    """Reliability tables as csv text: a row for each bin of each predictor on each split.

    Args:
        tables: {split: {predictor: (bins, 3)}}, see `Task.calibration_metric`.
    """
    header = ["split", "predictor", "low", "high", "images", "confidence", "accuracy"]
    rows: list[list[Any]] = []
    for split, predictors in tables.items():
        for predictor, table in predictors.items():
            for place, (images, *means) in enumerate(table.tolist()):
                edges = [round(edge / len(table), 6) for edge in (place, place + 1)]
                known = means if images else [None, None]
                rows.append([split, predictor, *edges, int(images), *known])
    return csv_text(header, rows)
