"""Rows and seeds in text form: `muse,byot,"strong=muse:lr_scale=2"` and `0-4`."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..core import METHODS, ConfigError
from ..data.sources import PREFIXES
from ..recipe.options import known_options, method_classes
from ..recipe.schema import literal

_NAME = r"[A-Za-z0-9][\w.+-]*"  # also the name of a folder
_MAX_SEEDS = 1000


@dataclass(frozen=True)
class ComparisonRow:
    """One row of a comparison.

    Attributes:
        name: unique; also the name of its folder.
        method: method that trains it.
        settings: options, teacher, peers or cut network of this row alone.
    """

    name: str
    method: str
    settings: dict[str, Any]


def parse_rows(texts: Iterable[str]) -> list[ComparisonRow]:
    """Parse rows with commas between them; a row is METHOD or METHOD:key=value,key=value.

    A name may stand before the method, NAME=METHOD:…; else the name is made of the row's text.

    Raises:
        ConfigError: an unknown method, or a text that is no row.
    """
    rows: list[ComparisonRow] = []
    open_row = ""  # text of the row that further options belong to
    for piece in (piece.strip() for text in texts for piece in text.split(",")):
        if open_row and _is_option(piece, rows[-1].method):
            open_row += f",{piece}"
            rows[-1] = _parse_row(open_row)
        elif piece:
            rows.append(_parse_row(piece))
            open_row = piece if ":" in piece else ""
        else:
            raise ConfigError("--methods has an empty row; write METHOD,METHOD:key=value")
    return rows


def _is_option(piece: str, method: str) -> bool:
    """Whether a piece is an option of the row before it: `lr=0.3`, but not `x=muse`."""
    key, equals, value = piece.partition("=")
    source = value.strip().startswith(PREFIXES)
    if not equals or (":" in piece and not source):
        return False
    is_method = all(part in set(METHODS) for part in value.split("+"))
    return key in known_options(method) or not is_method


def _parse_row(text: str) -> ComparisonRow:
    head, colon, tail = text.partition(":")
    name, equals, method = (part.strip() for part in head.rpartition("="))
    method_classes(method)  # raises for an unknown method
    if equals and not re.fullmatch(_NAME, name):
        raise ConfigError(
            f"'{name}' is no name for a row; letters, digits and . _ + - make one, as in "
            f"my-row={method}"
        )
    settings = dict(_parse_pair(piece, text) for piece in tail.split(",")) if colon else {}
    if not name:
        parts = [method, *(f"{key}-{value}" for key, value in settings.items())]
        name = re.sub(r"[^\w.+-]+", "_", "-".join(parts))
    return ComparisonRow(name, method, settings)


def _parse_pair(piece: str, text: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in piece.partition("="))
    if not (key and equals):
        raise ConfigError(f"row '{text}' has '{piece}' where key=value is due")
    return key, literal(value)


def parse_seeds(text: str | int | Iterable[int]) -> tuple[int, ...]:
    """Parse `0-4`, `0,3,7` or `0-2,9`, or take numbers; sorted, without duplicates.

    Raises:
        ConfigError: anything else.
    """
    if not isinstance(text, str):
        numbers: Sequence[Any] = [text] if isinstance(text, int) else list(text)
        text = ",".join(str(number) for number in numbers)
    seeds: set[int] = set()
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", piece)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise ConfigError(f"seeds are written 0-4 or 0,1,2, not '{text}'")
        if last - first >= _MAX_SEEDS:
            raise ConfigError(f"'{piece.strip()}' is {last - first + 1:,} seeds; that is a slip")
        seeds |= set(range(first, last + 1))
    return tuple(sorted(seeds))
