"""Tables as csv text, and record files read with an error that names them."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..core import ArtifactError

T = TypeVar("T")


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A header and rows; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return text.getvalue()


def csv_rows(text: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of csv text.

    Raises:
        ValueError: it is empty, or a row is longer or shorter than the header.
    """
    header, *rows = csv.reader(io.StringIO(text))
    if any(len(row) != len(header) for row in rows):
        raise ValueError("its rows have different lengths")
    return header, rows


def number(cell: str) -> float | None:
    """The number in a cell; None of an empty one."""
    return float(cell) if cell else None


def read_record(path: Path, parse: Callable[[str], T], kind: str) -> T | None:
    """The record in a file, None if there is no file.

    Args:
        path: the file.
        parse: makes the record of its text.
        kind: what the file should be, for the error message.

    Raises:
        ArtifactError: it cannot be read.
    """
    if not path.exists():
        return None
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return parse(stream.read())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no {kind} ({error})") from None
