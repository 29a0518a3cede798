"""The table of a run's predictors: how good each is, and what it costs."""

import csv
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ..core import Method
from .cost import cost
from .tables import csv_text


class ExitRow(NamedTuple):
    """One predictor; accuracies are fractions, None where there was nothing to judge by."""

    predictor: str
    parameters: int
    macs: int
    val_accuracy: float | None
    test_accuracy: float | None


Scores = Mapping[str, Mapping[str, float]]


def exit_rows(
    method: Method, example: Tensor, headline: str, val: Scores | None, test: Scores | None
) -> list[ExitRow]:
    """One row a predictor, in the method's order.

    Args:
        method: the trained method.
        example: an input of the network.
        headline: the metric that counts as accuracy.
        val, test: {predictor: {metric: value}}, or None.
    """
    rows = []
    for name, network in method.predictors().items():
        spent = cost(network, example)
        scores = [part[name][headline] if part else None for part in (val, test)]
        rows.append(ExitRow(name, spent.parameters, spent.macs, *scores))
    return rows


def to_csv(rows: list[ExitRow]) -> str:
    """The rows as csv text with a header."""
    return csv_text(ExitRow._fields, rows)


def from_csv(text: str) -> list[ExitRow]:
    """The rows that `to_csv` wrote."""
    return [
        ExitRow(
            row["predictor"],
            int(row["parameters"]),
            int(row["macs"]),
            float(row["val_accuracy"]) if row["val_accuracy"] else None,
            float(row["test_accuracy"]) if row["test_accuracy"] else None,
        )
        for row in csv.DictReader(io.StringIO(text))
    ]


Tables = Mapping[str, Mapping[str, Tensor]]


def calibration_csv(tables: Tables) -> str:
    """Reliability tables as csv text: a row for each bin of each predictor on each split.

    Args:
        tables: {split: {predictor: (bins, 3)}}, see `Task.calibration`.
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
