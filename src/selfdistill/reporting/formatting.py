"""How the report writes names and numbers."""

from collections.abc import Callable

from ..tasks.metric_names import shown_metric
from .run_data import LAST, RunData, stage

LETTER = 6.4  # pixels of a mean letter in a plot's labels
GAP = "\u2002"  # between a name and its value; plain spaces would collapse
Words = Callable[[float], str]


def shown(name: str) -> str:
    """A predictor's or term's name for people: "exit 3", "full network", else the name itself."""
    if name == LAST:
        return "full network"
    if number := stage(name):
        return f"exit {number}"
    return f"peer {name[4:]}" if name[:4] == "peer" and name[4:].isdecimal() else name


def metric(contents: RunData) -> str:
    """What the run is judged by: "accuracy", "mIoU"."""
    return shown_metric(contents.metric)


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
