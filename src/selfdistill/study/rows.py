"""What people write for rows and seeds: `muse,byot,"strong=muse:information_weight=0.3"`, `0-4`."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..core import METHODS, ConfigError
from ..recipe.options import known_options, parts_of
from ..recipe.schema import literal

_LABEL = r"[A-Za-z0-9][\w.+-]*"  # also a folder's name


class Row(NamedTuple):
    """One line of a comparison.

    Attributes:
        name: unique; also its folder.
        method: how it trains.
        own: what is set for this row alone.
    """

    name: str
    method: str
    own: dict[str, Any]


def parse_rows(texts: Iterable[str]) -> list[Row]:
    """Rows with commas between them; a row is METHOD or METHOD:key=value,key=value.

    A name may stand before the method, NAME=METHOD:…; else a row is named after what it says.

    Raises:
        ConfigError: an unknown method, or what is no row.
    """
    rows: list[Row] = []
    open_row = ""  # the text of the row that further options belong to
    for piece in (piece.strip() for text in texts for piece in text.split(",")):
        if open_row and _is_option(piece, rows[-1].method):
            open_row += f",{piece}"
            rows[-1] = _row(open_row)
        elif piece:
            rows.append(_row(piece))
            open_row = piece if ":" in piece else ""
        else:
            raise ConfigError("--methods has an empty row; write METHOD,METHOD:key=value")
    return rows


def _is_option(piece: str, method: str) -> bool:
    """Whether a piece is an option of the row before: `soft_weight=0.3`, but not `x=muse`."""
    key, equals, value = piece.partition("=")
    if not equals or ":" in piece:
        return False
    named = all(part in set(METHODS) for part in value.split("+"))
    return key in known_options(method) or not named


def _row(text: str) -> Row:
    """A row from its whole text."""
    head, colon, tail = text.partition(":")
    label, equals, method = (part.strip() for part in head.rpartition("="))
    parts_of(method)  # an unknown one is told here
    if equals and not re.fullmatch(_LABEL, label):
        raise ConfigError(
            f"'{label}' is no name for a row; letters, digits and . _ + - make one, as in "
            f"my-row={method}"
        )
    own = dict(_pair(piece, text) for piece in tail.split(",")) if colon else {}
    said = [method, *(f"{key}-{value}" for key, value in own.items())]
    return Row(label or re.sub(r"[^\w.+-]+", "_", "-".join(said)), method, own)


def _pair(piece: str, text: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in piece.partition("="))
    if not (key and equals):
        raise ConfigError(f"row '{text}' has '{piece}' where key=value is due")
    return key, literal(value)


def parse_seeds(text: str | int | Iterable[int]) -> tuple[int, ...]:
    """`0-4`, `0,3,7` or `0-2,9` as numbers in order, each once; numbers as they are.

    Raises:
        ConfigError: anything else.
    """
    if not isinstance(text, str):
        numbers: Sequence[Any] = [text] if isinstance(text, int) else list(text)
        text = ",".join(str(number) for number in numbers)
    seeds: set[int] = set()
    for piece in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", piece)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise ConfigError(f"seeds are written 0-4 or 0,1,2, not '{text}'")
        if last - first >= _MOST:
            raise ConfigError(f"'{piece.strip()}' is {last - first + 1:,} seeds; that is a slip")
        seeds |= set(range(first, last + 1))
    return tuple(sorted(seeds))


_MOST = 1000
