"""Tables as csv text, and record files read with an error that names them."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..core import ArtifactError, ResourceError
from ..core.files import read_bytes

T = TypeVar("T")
_OTHER_FORM = (LookupError, TypeError, AttributeError, RecursionError, csv.Error)
_FORMULA = tuple("=+-@\t\r")  # a spreadsheet runs what follows


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A header and rows; None is an empty cell.

    Text that a spreadsheet would run as a formula gets an apostrophe in front; numbers stay.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_quoted, header))
    writer.writerows(["" if cell is None else _quoted(cell) for cell in row] for row in rows)
    return text.getvalue()


def _quoted(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell


def _unquoted(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell


def _is_formula(text: str) -> bool:
    """Whether a spreadsheet may run a text, or would if it lost its apostrophes."""
    try:
        float(text)
    except ValueError:
        return text.lstrip("'").startswith(_FORMULA)
    return False


def csv_rows(text: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of csv text.

    Raises:
        ValueError: it is empty, or a row is longer or shorter than the header.
    """
    header, *rows = csv.reader(io.StringIO(text))
    if any(len(row) != len(header) for row in rows):
        raise ValueError("its rows have different lengths")
    return [_unquoted(cell) for cell in header], [[_unquoted(c) for c in row] for row in rows]


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
        ArtifactError: it is something else.
        ResourceError: it may not be read.
    """
    try:
        return parse(read_bytes(path).decode("utf-8"))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise ResourceError(f"{path} cannot be read: {error.strerror}".lower()) from None
    except (OSError, ValueError, ArithmeticError, *_OTHER_FORM) as error:
        raise ArtifactError(f"{path} is no {kind} ({error})") from None
