"""Gap between a reproduced score and a published one, with its 95 % interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from scipy import stats

from ..functional.statistics import CONFIDENCE, MIN_PAIRS, Significance, mean_std
from .reported_value import ReportedValue


def measured_value(values: Sequence[float]) -> ReportedValue:
    """Mean of some runs with their standard deviation."""
    return ReportedValue(*mean_std(values), len(values))


@dataclass(frozen=True)
class ReportedGap:
    """Reproduced score minus published score.

    Attributes:
        difference: of the means.
        half_width: of its 95 % interval, or None where it is not known.
        significance: whether the interval contains zero.
    """

    difference: float
    half_width: float | None
    significance: Significance


def reported_gap(reproduced: ReportedValue, published: ReportedValue) -> ReportedGap:
    """Compare two independent means by a 95 % t interval of their difference.

    With both deviations known it is Welch's (https://doi.org/10.1093/biomet/34.1-2.28). Where the
    published one is not, it is taken to equal ours; where the number of runs is not known, it is
    taken to be one. Fewer than three runs of ours are underpowered.
    """
    difference = reproduced.mean - published.mean
    n, m = reproduced.n or 1, published.n or 1
    if n < MIN_PAIRS or not reproduced.std:
        return ReportedGap(difference, None, Significance.UNDERPOWERED)
    variance = reproduced.std**2 / n
    if published.std and m > 1:
        published_variance = published.std**2 / m
        total = variance + published_variance
        freedom = total**2 / (variance**2 / (n - 1) + published_variance**2 / (m - 1))
    else:
        total, freedom = variance + reproduced.std**2 / m, n - 1
    half_width = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * sqrt(total)
    inside = abs(difference) <= half_width
    significance = Significance.INCONCLUSIVE if inside else Significance.SIGNIFICANT
    return ReportedGap(difference, half_width, significance)
