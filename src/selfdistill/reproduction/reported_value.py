"""Scores as tables print them."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ReportedValue:
    """Mean over runs.

    Attributes:
        mean: of the runs, mostly in percent.
        std: standard deviation over the runs, or None.
        n: number of runs, or None where it is not known.
        decimals: number of decimals that are printed.
    """

    mean: float
    std: float | None = None
    n: int | None = None
    decimals: int = 2

    def __str__(self) -> str:
        std = "" if self.std is None else f" ± {self.std:.{self.decimals}f}"
        return f"{self.mean:.{self.decimals}f}{std}"


def parse_reported_value(text: str, n: int | None = None) -> ReportedValue:
    """Parse `78.75 ± 0.31` or `69.8`, a mean of n runs.

    Raises:
        ValueError: the text is neither.
    """
    match = re.fullmatch(r"(\d+\.(\d+))(?: ± (\d+\.\d+))?", text)
    if not match:
        raise ValueError(f"'{text}' is no figure")
    mean, decimals, std = match.groups()
    return ReportedValue(float(mean), float(std) if std else None, n, len(decimals))
