"""`calibration.csv`: reliability tables of every predictor on every held-out split."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..functional.calibration import expected_calibration_error
from .csv_text import csv_rows, csv_text, read_record

FILE = "calibration.csv"
_HEADER = ["split", "predictor", "low", "high", "images", "confidence", "accuracy"]


@dataclass(frozen=True, eq=False)
class CalibrationTable:
    """The reliability table of one predictor on one split (Guo et al. 2017).

    Attributes:
        edges: of the bins of confidence, (bins + 1,).
        images: in each bin.
        confidence, accuracy: mean probability of the predicted class, and the fraction of correct
            predictions; nan in empty bins.
    """

    edges: NDArray[np.float64]
    images: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @classmethod
    def from_tensor(cls, table: Tensor) -> Self:
        """The record of `Task.calibration_metric`: (bins, 3) of images, confidence, accuracy."""
        images, *means = table.double().cpu().numpy().T
        confidence, accuracy = (np.where(images > 0, mean, np.nan) for mean in means)
        edges = np.round(np.arange(len(table) + 1) / len(table), 6)
        return cls(edges, images.astype(int), confidence, accuracy)

    @property
    def error(self) -> float:
        """The expected calibration error, a fraction."""
        columns = (self.images, self.confidence, self.accuracy)
        return expected_calibration_error(torch.from_numpy(np.stack(columns, 1)))


Calibrations = Mapping[str, Mapping[str, CalibrationTable]]
"""{split: {predictor: table}}."""


def to_csv(calibrations: Calibrations) -> str:
    """A row for each bin of each predictor on each split; empty bins have no means."""
    rows: list[list[object]] = []
    for split, tables in calibrations.items():
        for predictor, table in tables.items():
            columns: list[NDArray[Any]] = [table.edges[:-1], table.edges[1:], table.images]
            columns += [table.confidence, table.accuracy]
            for cells in zip(*(column.tolist() for column in columns), strict=True):
                known = [None if cell != cell else cell for cell in cells]  # nan in empty bins
                rows.append([split, predictor, *known])
    return csv_text(_HEADER, rows)


def from_csv(text: str) -> Calibrations:
    """The tables that `to_csv` wrote.

    Raises:
        ValueError: it wrote something else.
    """
    header, rows = csv_rows(text)
    if header != _HEADER:
        raise ValueError("its columns are others")
    calibrations: dict[str, dict[str, CalibrationTable]] = {}
    for (split, predictor), bins in groupby(rows, key=lambda row: row[:2]):
        cells = [[float(cell or "nan") for cell in row[2:]] for row in bins]
        low, high, images, confidence, accuracy = np.array(cells).T
        calibrations.setdefault(split, {})[predictor] = CalibrationTable(
            np.append(low, high[-1]), images.astype(int), confidence, accuracy
        )
    return calibrations


def read_calibrations(run_dir: Path) -> Calibrations:
    """The tables of a run, {} where its task has none.

    Raises:
        ArtifactError: the file cannot be read.
    """
    return read_record(run_dir / FILE, from_csv, "table of calibration") or {}
