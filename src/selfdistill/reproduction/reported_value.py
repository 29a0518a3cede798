"""Figures as tables print them."""

import re
from typing import NamedTuple


class ReportedValue(NamedTuple):
    """A mean over runs.

    Attributes:
        mean: of the runs, mostly in percent.
        std: standard deviation over them, or None.
        n: how many, or None where it is not known.
        decimals: as printed.
    """

    mean: float
    std: float | None = None
    n: int | None = None
    decimals: int = 2

    def __str__(self) -> str:
        spread = "" if self.std is None else f" ± {self.std:.{self.decimals}f}"
        return f"{self.mean:.{self.decimals}f}{spread}"


def parse_reported_value(text: str, n: int | None = None) -> ReportedValue:
    """`78.75 ± 0.31` or `69.8`, of n runs.

    Raises:
        ValueError: it is neither.
    """
    found = re.fullmatch(r"(\d+\.(\d+))(?: ± (\d+\.\d+))?", text)
    if not found:
        raise ValueError(f"'{text}' is no figure")
    mean, decimals, std = found.groups()
    return ReportedValue(float(mean), float(std) if std else None, n, len(decimals))
