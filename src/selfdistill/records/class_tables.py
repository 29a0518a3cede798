"""`confusion.csv` and `classes.csv`: what the student makes of each class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .csv_text import csv_rows, csv_text, number, read_record

CLASSES_FILE = "classes.csv"


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """How often each class was predicted for each.

    Attributes:
        classes: their names.
        counts: [true, predicted], (K, K).
    """

    classes: Sequence[str]
    counts: NDArray[np.int64]

    def to_csv(self) -> str:
        """The names of the classes, and a row for each true class."""
        return csv_text(self.classes, self.counts.tolist())

    @classmethod
    def from_csv(cls, text: str) -> Self:
        """The matrix that `to_csv` wrote.

        Raises:
            ValueError: it is not square, or not of whole numbers.
        """
        classes, rows = csv_rows(text)
        if len(rows) != len(classes):
            raise ValueError(f"it has {len(classes)} columns and {len(rows)} rows")
        return cls(classes, np.array([[int(cell) for cell in row] for row in rows]))


@dataclass(frozen=True)
class ClassScores:
    """Scores and counts of each class.

    Attributes:
        classes: their names.
        columns: {name: a value for each class}: fractions, None where nothing could be evaluated,
            or counts, which are whole numbers.
    """

    classes: Sequence[str]
    columns: Mapping[str, Sequence[float | None]]

    @classmethod
    def from_tensors(cls, classes: Sequence[str], columns: Mapping[str, Tensor]) -> Self:
        """The record of `Task.per_class_metric`: {name: (K,)}, nan where nothing was evaluated."""
        values = {
            name: [None if value != value else value for value in column.tolist()]
            for name, column in columns.items()
        }
        return cls(classes, values)

    def is_count(self, column: str) -> bool:
        """Whether a column holds whole numbers."""
        return all(isinstance(value, int) for value in self.columns[column])

    def to_csv(self) -> str:
        """A row for each class."""
        rows = zip(self.classes, *self.columns.values(), strict=True)
        return csv_text(["class", *self.columns], rows)

    @classmethod
    def from_csv(cls, text: str) -> Self:
        """The table that `to_csv` wrote.

        Raises:
            ValueError: it wrote something else.
        """
        (_, *names), rows = csv_rows(text)
        classes, *columns = zip(*rows, strict=True)
        values = {name: _values(column) for name, column in zip(names, columns, strict=True)}
        return cls(list(classes), values)


def _values(cells: Sequence[str]) -> list[float | None]:
    if all(cell.isdecimal() for cell in cells):
        return [int(cell) for cell in cells]
    return [number(cell) for cell in cells]


def read_confusion(run_dir: Path) -> ConfusionMatrix | None:
    """The confusion matrix of a run, None where its task has none.

    Raises:
        ArtifactError: the file cannot be read.
    """
    return read_record(run_dir / "confusion.csv", ConfusionMatrix.from_csv, "confusion matrix")


def read_class_scores(run_dir: Path) -> ClassScores | None:
    """The scores of each class of a run, None where its task has none.

    Raises:
        ArtifactError: the file cannot be read.
    """
    return read_record(run_dir / CLASSES_FILE, ClassScores.from_csv, "table of classes")
