"""Whether our figure and a published one differ by more than noise."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from scipy import stats

from ..functional.statistics import (
    CONFIDENCE,
    FEWEST,
    Significance,
    mean_std,
)
from .reported_value import ReportedValue


def measured_value(values: Sequence[float]) -> ReportedValue:
    """The mean of some runs with their spread."""
    return ReportedValue(*mean_std(values), len(values))


class ReportedGap(NamedTuple):
    """Ours minus theirs, and how far noise reaches to either side, None where that is open."""

    difference: float
    reach: float | None
    verdict: Significance


def reported_gap(ours: ReportedValue, theirs: ReportedValue) -> ReportedGap:
    """Compare two independent means by a 95 % t interval of their difference.

    With both spreads known it is Welch's (https://doi.org/10.1093/biomet/34.1-2.28). Where theirs
    is not, their runs are taken to spread as ours do; where their number is not known, it is one.
    Nothing is said of fewer than three runs of ours.
    """
    difference = ours.mean - theirs.mean
    n, m = ours.n or 1, theirs.n or 1
    if n < FEWEST or not ours.std:
        return ReportedGap(difference, None, Significance.OPEN)
    mine = ours.std**2 / n
    if theirs.std and m > 1:
        other = theirs.std**2 / m
        freedom = (mine + other) ** 2 / (mine**2 / (n - 1) + other**2 / (m - 1))
    else:
        other, freedom = ours.std**2 / m, n - 1
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * sqrt(mine + other)
    within = abs(difference) <= reach
    return ReportedGap(difference, reach, Significance.WITHIN if within else Significance.BEYOND)
