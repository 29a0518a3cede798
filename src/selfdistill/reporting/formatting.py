"""Names and numbers as the pages write them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

NumberFormat = Callable[[float], str]


def exit_number(name: str) -> int | None:
    """The number that ends a name: 3 for "exit3" and "soft/3", None for "task" and "student"."""
    match = re.fullmatch(r"(?:exit|.*/)(\d{1,3})", name)
    return int(match[1]) if match else None


def shown(name: str) -> str:
    """A predictor's or term's name for people: "exit 3", else the name itself."""
    if number := exit_number(name):
        return f"exit {number}"
    return f"peer {name[4:]}" if name[:4] == "peer" and name[4:].isdecimal() else name


def plain(value: Any) -> str:
    """A value of a recipe: lists with commas, dictionaries as "name value" with commas."""
    if value is None or value in ("", [], {}):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(plain(part) for part in value)
    return str(value)


def titled(text: str) -> str:
    """With a capital at the beginning, unless the first word has letters of its own: "mIoU"."""
    first = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if first.islower() else text


def percent(fraction: float, places: int = 1) -> str:
    """0.975 as "97.5 %"."""
    return f"{100 * fraction:.{places}f} %"


def share(fraction: float) -> str:
    """0.6234 as "62 %", and less than one percent with its digits."""
    return f"{100 * fraction:.0f} %" if fraction >= 0.01 else f"{100 * fraction:.2g} %"


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, and no trailing zeros."""
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("e+0", "e")


def decimals(value: float) -> str:
    """Three places, for losses that are compared with chance."""
    return f"{value:.3f}"


def thousands(value: int) -> str:
    """10000 as "10 000"."""
    return f"{value:,}".replace(",", "\u202f")


def count(value: float) -> str:
    """1_230_000 as "1.23 M"."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def milliseconds(value: float) -> str:
    """0.4213 as "0.421 ms"."""
    return f"{value:.3g} ms"


def file_size(size: int) -> str:
    """1_230_000 as "1.23 MB"."""
    return f"{count(size)}B" if size >= 1000 else f"{size} B"
