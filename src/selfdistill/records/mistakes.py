"""`mistakes.csv`: held-out images that the student gets wrong, the surest first."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from .csv_text import csv_rows, csv_text, read_record

FILE = "mistakes.csv"
_HEADER = ("image", "label", "prediction", "confidence")


@dataclass(frozen=True)
class Mistake:
    """An image that the student gets wrong.

    Attributes:
        image: its number among the held-out images.
        label: its class.
        prediction: the class that the student takes it for.
        confidence: the probability that the student gives to that class.
    """

    image: int
    label: str
    prediction: str
    confidence: float


def to_csv(mistakes: Sequence[Mistake]) -> str:
    """The text of the file."""
    return csv_text(_HEADER, map(astuple, mistakes))


def from_csv(text: str) -> list[Mistake]:
    """The mistakes in the text.

    Raises:
        ValueError: it is no such table.
    """
    header, rows = csv_rows(text)
    if tuple(header) != _HEADER:
        raise ValueError("it has other columns")
    return [
        Mistake(int(image), label, prediction, float(confidence))
        for image, label, prediction, confidence in rows
    ]


def read_mistakes(run_dir: Path) -> list[Mistake]:
    """The mistakes of a run; none where they are not recorded.

    Raises:
        ArtifactError: the file cannot be read.
    """
    return read_record(run_dir / FILE, from_csv, "table of mistakes") or []
