"""Is a difference more than noise? Means, spreads and paired intervals over few seeds."""

from collections.abc import Sequence
from enum import StrEnum
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

import numpy as np
from scipy import stats
from torch import Tensor

CONFIDENCE = 0.95
FEWEST = 3  # the spread of two differences is hardly known: their t interval is 12.7 times as wide
_RESAMPLES = 10_000


class Significance(StrEnum):
    """What a paired difference allows to say."""

    BEYOND = "beyond noise"
    WITHIN = "within noise"
    OPEN = "too few seeds to say"


class Interval(NamedTuple):
    """From low to high."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether the value lies inside; the ends count."""
        return self.low <= value <= self.high


class Difference(NamedTuple):
    """A paired difference; intervals are None where there is one pair only.

    Attributes:
        n: how many pairs.
        mean: of the differences.
        t: Student's t interval.
        bootstrap: the percentile bootstrap interval.
        verdict: what they allow to say.
    """

    n: int
    mean: float
    t: Interval | None
    bootstrap: Interval | None
    verdict: Significance


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (over n − 1, None of a single value)."""
    return fmean(values), stdev(values) if len(values) > 1 else None


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Ours minus theirs, pair by pair, with two 95 % intervals of the mean and a verdict.

    The bootstrap draws the pairs anew. It assumes no distribution, and with few seeds it is too
    narrow: the draws spread less than the seeds did, by a factor √((n−1)/n), and know nothing of
    how badly so few seeds show the spread. Five pairs of pure noise fall outside the 95 % interval
    one time in seven, three pairs one time in four. Student's t interval pays for that with its
    quantile (4.3 standard errors at three seeds, 2.8 at five, 2.0 at many) and assumes that
    differences are roughly normal. A difference is called beyond noise if neither holds zero,
    which at few seeds is t's verdict and guards against skew at many.

    Nothing is said of fewer than three pairs, nor of differences that are all alike and not zero:
    accuracies are counted in whole images, and a spread that does not show cannot be judged by.

    Raises:
        ValueError: nothing to compare, or not in pairs.
    """
    if not ours:
        raise ValueError("there are no pairs to compare")
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, n = fmean(differences), len(differences)
    if n == 1:
        return Difference(n, mean, None, None, Significance.OPEN)
    t, bootstrap = t_interval(differences), bootstrap_interval(differences)
    return Difference(n, mean, t, bootstrap, _verdict(differences, t, bootstrap))


def _verdict(differences: Sequence[float], t: Interval, bootstrap: Interval) -> Significance:
    alike = np.ptp(differences) < 1e-12 and abs(differences[0]) > 1e-12
    if len(differences) < FEWEST or alike:
        return Significance.OPEN
    return Significance.WITHIN if t.holds(0) or bootstrap.holds(0) else Significance.BEYOND


def t_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of two or more values."""
    mean, n = fmean(values), len(values)
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * stdev(values) / n**0.5
    return Interval(mean - reach, mean + reach)


def bootstrap_interval(values: Sequence[float]) -> Interval:
    """The percentile bootstrap interval of the mean; the same values give the same interval."""
    drawn = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    means = np.asarray(values)[drawn].mean(1)
    low, high = np.quantile(means, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return Interval(float(low), float(high))


class PairedDifference(NamedTuple):
    """What two networks say of the same images.

    Attributes:
        mean: difference of the accuracies, ours minus theirs.
        interval: of 95 % for it.
        verdict: whether the interval holds zero.
    """

    mean: float
    interval: Interval
    verdict: Significance


def paired_difference(ours: Tensor, theirs: Tensor) -> PairedDifference:
    """Compare image by image; only those tell that one of the two gets right and the other wrong.

    The interval is that of Bonett and Price 2012 (Journal of Educational and Behavioral Statistics
    37, 479): the normal one, with one image added to either side, without which few images would
    seem to prove too much. It holds zero where McNemar's exact test finds no difference, but for a
    rare image on the border.

    Args:
        ours, theirs: whether each image is answered right, (N,) bool, in the same order.
    """
    won, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    images = len(ours)
    middle = (won - lost) / (images + 2)
    variance = ((won + lost + 2) / (images + 2) - middle**2) / (images + 2)
    reach = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * variance**0.5
    interval = Interval(middle - reach, middle + reach)
    verdict = Significance.WITHIN if interval.holds(0) else Significance.BEYOND
    return PairedDifference((won - lost) / images, interval, verdict)
