"""Statistics over few seeds: means, deviations and paired intervals of differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

import numpy as np
from scipy import stats
from torch import Tensor

CONFIDENCE = 0.95
MIN_PAIRS = 3  # of two differences the deviation is hardly known: their t interval is 12.7 errors
_RESAMPLES = 10_000


class Significance(StrEnum):
    """Conclusion that a difference allows; the value is the text for people."""

    SIGNIFICANT = "beyond noise"
    INCONCLUSIVE = "within noise"
    UNDERPOWERED = "too few seeds to say"


class Interval(NamedTuple):
    """Closed interval from low to high."""

    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Whether the value lies inside; the ends count."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class MeanDifference:
    """Mean of paired differences; intervals and p-value are None where there is one pair only.

    Attributes:
        n: number of pairs.
        mean: mean of the differences.
        t: Student's t interval.
        bootstrap: percentile bootstrap interval.
        significance: conclusion from both intervals.
        p_value: that of Student's paired t test, two-sided.
    """

    n: int
    mean: float
    t: Interval | None
    bootstrap: Interval | None
    significance: Significance
    p_value: float | None = None


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (over n − 1, None of a single value)."""
    return fmean(values), stdev(values) if len(values) > 1 else None


def mean_difference(scores: Sequence[float], baseline: Sequence[float]) -> MeanDifference:
    """Mean of scores minus baseline, pair by pair, with two 95 % intervals and their conclusion.

    The bootstrap resamples the pairs. It assumes no distribution, and with few pairs it is too
    narrow: resamples spread less than the pairs did, by a factor √((n−1)/n), and it ignores how
    uncertain the deviation of so few pairs is. Five pairs of pure noise fall outside the 95 %
    interval one time in six, three pairs one time in four. Student's t interval pays for that
    with its quantile (4.3 standard errors at three pairs, 2.8 at five, 2.0 at many) and assumes
    that differences are roughly normal. A difference is significant if neither interval contains
    zero, which is decided by t at few pairs and guards against skew at many.

    Fewer than three pairs are underpowered, and so are differences that are all equal and not
    zero: accuracies are counted in whole images, so a deviation of zero is no estimate.

    Raises:
        ValueError: there are no pairs, or the two have different lengths.
    """
    if not scores:
        raise ValueError("there are no pairs to compare")
    differences = [a - b for a, b in zip(scores, baseline, strict=True)]
    mean, n = fmean(differences), len(differences)
    if n == 1:
        return MeanDifference(n, mean, None, None, Significance.UNDERPOWERED)
    t, bootstrap = t_interval(differences), bootstrap_interval(differences)
    significance = _significance(differences, t, bootstrap)
    return MeanDifference(n, mean, t, bootstrap, significance, _p_value(differences))


def _significance(differences: Sequence[float], t: Interval, bootstrap: Interval) -> Significance:
    all_equal = np.ptp(differences) < 1e-12 and abs(differences[0]) > 1e-12
    if len(differences) < MIN_PAIRS or all_equal:
        return Significance.UNDERPOWERED
    if t.contains(0) or bootstrap.contains(0):
        return Significance.INCONCLUSIVE
    return Significance.SIGNIFICANT


def _p_value(differences: Sequence[float]) -> float:
    """That of Student's t test of a mean of zero; differences that are all equal show nothing."""
    error = stdev(differences) / len(differences) ** 0.5
    if error < 1e-12:
        return 1.0
    return float(2 * stats.t.sf(abs(fmean(differences)) / error, len(differences) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, adjusted so that all of them together err as one would.

    Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 65: the smallest of k is multiplied by k, the next by k − 1, and none falls below
    one that was smaller.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def t_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of two or more values."""
    mean, n = fmean(values), len(values)
    half_width = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * stdev(values) / n**0.5
    return Interval(mean - half_width, mean + half_width)


def bootstrap_interval(values: Sequence[float]) -> Interval:
    """Percentile bootstrap interval of the mean; the same values give the same interval."""
    indices = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    means = np.asarray(values)[indices].mean(1)
    low, high = np.quantile(means, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two networks' accuracies on the same images.

    Attributes:
        mean: accuracy minus the baseline's accuracy.
        interval: its 95 % interval.
        significance: whether the interval contains zero.
    """

    mean: float
    interval: Interval
    significance: Significance


def paired_difference(correct: Tensor, baseline: Tensor) -> PairedDifference:
    """Compare two networks image by image; only images that one of them gets wrong count.

    The interval is that of Bonett and Price 2012 (Journal of Educational and Behavioral Statistics
    37, 479): the normal one, with one image added to either side, without which few images would
    seem to prove too much. It contains zero where McNemar's exact test finds no difference, but
    for a rare image on the border.

    Args:
        correct, baseline: whether each image is answered right, (N,) bool, in the same order.
    """
    won, lost = int((correct & ~baseline).sum()), int((baseline & ~correct).sum())
    images = len(correct)
    center = (won - lost) / (images + 2)
    variance = ((won + lost + 2) / (images + 2) - center**2) / (images + 2)
    half_width = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * variance**0.5
    interval = Interval(center - half_width, center + half_width)
    inconclusive = interval.contains(0)
    significance = Significance.INCONCLUSIVE if inconclusive else Significance.SIGNIFICANT
    return PairedDifference((won - lost) / images, interval, significance)
