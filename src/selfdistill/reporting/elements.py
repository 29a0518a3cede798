"""Content of a page as plain data, which the templates turn into HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """A cell of a table that holds more than text.

    Attributes:
        text: what is shown.
        title: shown when the pointer rests on it.
        bar: length of a bar under the text, a fraction.
        color: of the bar, in CSS.
        link: address that the text leads to.
        strong: whether the text is bold.
    """

    text: str
    title: str = ""
    bar: float | None = None
    color: str = "var(--muted)"
    link: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        cells: texts or cells.
        swatch: color of a dot before the first cell, in CSS.
        strong: whether the row is bold.
    """

    cells: Sequence[str | Cell]
    swatch: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first `text_columns` columns are text and the others numbers."""

    heads: Sequence[str]
    rows: Sequence[Row]
    text_columns: int = 1


@dataclass(frozen=True)
class Card:
    """A number to remember, with what it is above it and details below it."""

    label: str
    figure: str
    details: str


def two_columns(values: Mapping[str, Any], caption: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and values as two captioned tables of equal length."""
    items = list(values.items())
    half = (len(items) + 1) // 2
    return [(caption, dict(items[:half])), ("\u00a0", dict(items[half:]))]
