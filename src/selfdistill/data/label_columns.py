"""Which columns of a table hold the pictures, their classes and their parts."""

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..core import DataError
from .open_image import EXTENSIONS
from .parts import split_of_name
from .text_files import read_text

Columns = dict[str, list[str]]
"""Cells by the name of their column."""
_LABELS = ("label", "labels", "class", "class_name", "classname", "category", "target")
_PARTS = ("split", "part", "subset", "set", "partition")
_DELIMITERS = ",;\t|"
_JSON_LINES = (".jsonl", ".ndjson")
_NO_LABEL = {"nan", "NaN", "NA", "N/A", "null", "NULL"}  # what pandas, R and databases write
_ZERO_OR_ONE = {"0": False, "1": True, "0.0": False, "1.0": True}


class LabelColumns(NamedTuple):
    """The columns that say an image's class: one with its name, or one for each class.

    Attributes:
        names: of the columns.
        guessed: whether the name of the one column does not say that it has the class.
    """

    names: tuple[str, ...]
    guessed: bool = False

    def labels(self, columns: Mapping[str, Sequence[str]]) -> list[str]:
        """The class of each row, "" where none is given."""
        if len(self.names) == 1:
            cells = (cell.strip() for cell in columns[self.names[0]])
            return ["" if cell in _NO_LABEL else cell for cell in cells]
        rows = zip(*(columns[name] for name in self.names), strict=True)
        marks = [[_ZERO_OR_ONE.get(cell.strip(), False) for cell in row] for row in rows]
        return [self.names[row.index(True)] if sum(row) == 1 else "" for row in marks]


def read_columns(file: Path) -> Columns:
    """The cells of a table: JSON objects, one a line, where the file's name ends so, or text.

    Raises:
        DataError: the table cannot be read, has no rows, or rows of different lengths.
    """
    if file.suffix.lower() in _JSON_LINES:
        return _of_objects(file)
    return _of_separated_values(file)


def _of_objects(file: Path) -> Columns:
    """Keys are columns, but those that hold lists or objects; a key that is missing is no value."""
    rows: list[dict[str, object]] = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"cannot read {file} (line {number}: {error})") from None
            if not isinstance(row, dict):
                raise DataError(f"line {number} of {file} is no object; write one for each picture")
            rows.append(row)
    if not any(rows):
        raise DataError(f"{file} has no row with a picture and its class")
    names = dict.fromkeys(name for row in rows for name in row)
    flat = [name for name in names if not any(isinstance(r.get(name), list | dict) for r in rows)]
    return {name: [_cell(row.get(name)) for row in rows] for name in flat}


def _cell(value: object) -> str:
    """A value as a CSV file has it: nothing for null, 0 and 1 for false and true."""
    if isinstance(value, str):  # half of a pair of escapes is no character
        return value.encode("utf-8", "replace").decode("utf-8")
    return "" if value is None else str(int(value) if isinstance(value, bool) else value)


def _of_separated_values(file: Path) -> Columns:
    """Cells between commas, semicolons, tabs or bars.

    The first line has the names of the columns, unless it names a picture.
    """
    text = read_text(file)
    first_line = next(iter(text.splitlines()), "")
    delimiter = max(_DELIMITERS, key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                if len(row) != len(rows[0]):
                    raise DataError(
                        f"line {reader.line_num} of {file} has {len(row)} cells where the first "
                        f"has {len(rows[0])}; quote cells that hold '{delimiter}'"
                    )
    except csv.Error as error:
        raise DataError(f"cannot read {file} (line {reader.line_num}: {error})") from None
    named = not any(_is_picture(cell) for row in rows[:1] for cell in row)
    header = rows.pop(0) if rows and named else [""] * len(rows[0] if rows else ())
    if not rows:
        raise DataError(f"{file} has no row with a picture and its class")
    names = [name.strip() or f"column {i}" for i, name in enumerate(header, 1)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"two columns of {file} are called '{twice[0]}'; rename one")
    return {name: list(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)}


def _is_picture(cell: str) -> bool:
    return os.path.splitext(cell.strip())[1].lower() in EXTENSIONS


def part_column(columns: Columns, file: Path) -> str | None:
    """The column that says which rows are for training, validation and testing.

    Raises:
        DataError: it says so of some rows and of others not, or is called `split` and of none.
    """
    for name, cells in columns.items():
        if name.casefold() in _PARTS:
            unknown = [cell for cell in cells if not split_of_name(cell.strip())]
            if not unknown:
                return name
            if len(unknown) < len(cells) or name.casefold() == _PARTS[0]:
                raise DataError(
                    f"the column '{name}' of {file} has '{unknown[0]}', which is none of train, "
                    "val and test; write one of these, or call the column otherwise if it is not "
                    "about parts"
                )
    return None


def label_columns(columns: Columns, others: Sequence[str], file: Path) -> LabelColumns:
    """The columns with the class, among those that name neither pictures nor parts.

    Raises:
        DataError: there is none, it is not clear which it is, or pictures have several classes.
    """
    known = {name.casefold(): name for name in reversed(others)}
    for name in _LABELS:
        if name in known:
            return LabelColumns((known[name],))
    if len(others) == 1:
        return LabelColumns((others[0],), guessed=True)
    shown = ", ".join(f"'{name}'" for name in others[:6]) + ", …" * (len(others) > 6)
    if not others:
        raise DataError(f"{file} names pictures and nothing else; add a column 'label'")
    if any(cell.strip() not in _ZERO_OR_ONE for name in others for cell in columns[name]):
        raise DataError(
            f"which column of {file} has the class is not clear ({shown}); call it 'label'"
        )
    one_hot = LabelColumns(tuple(others))
    if not all(one_hot.labels(columns)):
        raise DataError(
            f"the columns {shown} of {file} give some pictures several classes or none; each is to "
            "have one"
        )
    return one_hot


def class_names(labels: Sequence[str], source: str) -> list[str]:
    """The classes in the labels of the training rows, sorted, numbers by their value.

    Args:
        labels: one a row.
        source: where they are, for errors.

    Raises:
        DataError: there is one only, or the labels are no classes.
    """
    present = set(labels) - {""}  # the reader of the rows names those
    if len(present) < 2:
        raise DataError(f"all rows of {source} have one class; two are the least")
    for label in sorted(present):
        several = re.split(r"[\s,;|]+", label)
        if "|" in label or (len(several) > 1 and present.issuperset(several)):
            raise DataError(
                f"{source} gives pictures several classes ('{label}'); each is to have one"
            )
    if 2 * len(present) > len(labels):
        raise DataError(
            f"{source} has {len(present):,} different values in {len(labels):,} rows, so these are "
            "no classes; let the column 'label' hold the class of each picture, of which several "
            "pictures are"
        )
    names = sorted(present)  # equal numbers in different spellings keep this order
    try:
        return sorted(names, key=float)
    except ValueError:
        return names
