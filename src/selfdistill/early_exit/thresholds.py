"""How sure an exit must be for an image to leave there, and what that costs and saves."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..core import ConfigError

Threshold = float | None
"""The least confidence to leave with, in (0, 1]; None where the exit is not asked at all."""

_STEPS = 50  # thresholds tried at an exit
_CHOICES = 1_000_000  # combinations tried, which lowers the steps where there are many exits
_MOST_EXITS = 8  # with more, fewer than four thresholds would be tried at each


class ExitCosts(NamedTuple):
    """Multiply-adds of one image.

    Attributes:
        trunk: of the network from the input to each exit's tap, and of the whole network.
        heads: of what hangs at each tap.
    """

    trunk: tuple[int, ...]
    heads: tuple[int, ...]

    def leaving(self, thresholds: Sequence[Threshold]) -> list[int]:
        """Of an image that leaves at each exit, and at the end: all heads on its way are paid."""
        asked = [0 if t is None else head for t, head in zip(thresholds, self.heads, strict=True)]
        return [trunk + sum(asked[: k + 1]) for k, trunk in enumerate(self.trunk)]


class ExitDecisions(NamedTuple):
    """What the exits and the student made of some images.

    Attributes:
        confidence: of each exit, (N, exits) float32.
        right: whether each exit and, last, the student was right, (N, exits + 1) bool.
    """

    confidence: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]


class ThresholdOutcome(NamedTuple):
    """What thresholds come to on some images.

    Attributes:
        shares: the part of the images that leaves at each exit, and at the end.
        accuracy: of the answers that the images leave with.
        macs: mean multiply-adds of an image.
    """

    shares: tuple[float, ...]
    accuracy: float
    macs: float


def as_thresholds(
    given: Threshold | Iterable[Threshold], exits: Sequence[str]
) -> tuple[Threshold, ...]:
    """One threshold for each exit, from one for all or one each.

    Raises:
        ConfigError: another number of thresholds than of exits, one that is no confidence, or none
            at any exit.
    """
    each = list(given) if isinstance(given, Iterable) else [given] * len(exits)
    if len(each) != len(exits):
        raise ConfigError(
            f"there are {len(exits)} exits ({', '.join(exits)}) and {len(each)} thresholds; "
            "give one for all, or one each"
        )
    for t in each:
        if t is not None and not 0 < t <= 1:
            raise ConfigError(
                f"a threshold is a confidence, above 0 and at most 1, not {t:g}; "
                "0.9 lets go of what an exit is 90 % sure of"
            )
    if all(t is None for t in each):
        raise ConfigError(
            "without a threshold at any exit no image leaves early; give one a number"
        )
    return tuple(None if t is None else float(t) for t in each)


def threshold_outcome(
    watched: ExitDecisions, prices: ExitCosts, thresholds: Sequence[Threshold]
) -> ThresholdOutcome:
    """Let the images leave at the first exit whose threshold they reach."""
    images = len(watched.right)
    left = np.full(images, len(thresholds))
    for k, t in reversed(list(enumerate(thresholds))):
        if t is not None:
            left[watched.confidence[:, k] >= np.float32(t)] = k
    counts = np.bincount(left, minlength=len(thresholds) + 1)
    right = watched.right[np.arange(images), left].mean()
    macs = counts @ np.array(prices.leaving(thresholds)) / images
    return ThresholdOutcome(tuple((counts / images).tolist()), float(right), float(macs))


def calibrate_thresholds(
    watched: ExitDecisions, prices: ExitCosts, max_loss: float
) -> tuple[Threshold, ...]:
    """The thresholds of least mean multiply-adds that lose no more than is allowed.

    Every combination is judged: at each exit the thresholds that let a 50th, two 50ths, … of the
    images go (coarser steps where there are more than three exits), and the exit left out, which
    saves its head. Exits differ in how much their confidence is worth, so each has a threshold of
    its own. Because nothing is left untried, more allowed loss never costs more.

    Args:
        watched: validation images; never those that the result is reported on.
        prices: of the same exits.
        max_loss: how much lower than the student's the accuracy may be, in [0, 1).

    Raises:
        ConfigError: `max_loss` is no loss, or there are too many exits to try all combinations.
    """
    exits = watched.confidence.shape[1]
    if not 0 <= max_loss < 1:
        raise ConfigError(
            f"the allowed loss is a part of all images, from 0 to below 1, not {max_loss:g}; "
            "0.01 is one point of accuracy"
        )
    if exits > _MOST_EXITS:
        raise ConfigError(
            f"thresholds of {exits} exits are too many to choose together ({_MOST_EXITS} at most); "
            "give them, or train with fewer taps"
        )
    steps = min(_STEPS, int(_CHOICES ** (1 / exits)) - 1)
    grids = [_grid(column, steps) for column in watched.confidence.T]
    right, macs = _all_outcomes(watched, prices, grids)
    student = watched.right[:, -1].sum()
    macs[right < student - max_loss * len(watched.right) - 1e-6] = np.iinfo(macs.dtype).max
    cheapest = np.flatnonzero(macs == macs.min())
    best = cheapest[right.flat[cheapest].argmax()]
    chosen = zip(grids, np.unravel_index(best, macs.shape), strict=True)
    return tuple(float(grid[i]) if i < len(grid) else None for grid, i in chosen)


def _grid(confidence: npt.NDArray[np.float32], steps: int) -> npt.NDArray[np.float32]:
    """Ascending thresholds that let all, and ever fewer, of the images go.

    Each lies half-way between two confidences that occurred: rounding moves no image across it.
    """
    values = np.unique(confidence)
    lower = np.concatenate([values[:1] * 0, values[:-1]])
    shares = np.linspace(0, 1, steps + 1)[:-1]
    places = np.searchsorted(values, np.quantile(confidence, shares, method="higher"))
    return np.unique((lower[places] + values[places]) / 2)


def _all_outcomes(
    watched: ExitDecisions, prices: ExitCosts, grids: list[npt.NDArray[np.float32]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many images are right, and all their multiply-adds, for each combination of thresholds.

    Axis k is exit k; place i on it is threshold i of its grid, the last place no threshold.
    """
    exits, sizes = len(grids), [len(grid) + 1 for grid in grids]
    columns = zip(grids, watched.confidence.T, strict=True)
    reached = [np.searchsorted(grid, column, side="right") for grid, column in columns]

    def staying(k: int, of: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """How many of some images are still there behind the first k exits."""
        cells = [np.zeros(of.sum(), np.int64), *(places[of] for places in reached[:k])]
        counts = np.zeros([1, *sizes[:k]], np.int64)
        np.add.at(counts, tuple(cells), 1)
        for axis in range(k):  # it stays with every threshold from the first that it misses on
            counts = counts.cumsum(axis + 1)
        return counts.reshape(sizes[:k] + [1] * (exits - k))

    everyone = np.ones(len(watched.right), np.bool_)
    right = staying(exits, watched.right[:, -1])
    macs = np.zeros(sizes, np.int64)
    sections = np.diff(prices.trunk, prepend=0)
    for k in range(exits):
        right = right + staying(k, watched.right[:, k]) - staying(k + 1, watched.right[:, k])
        head = np.full(sizes[k], prices.heads[k])
        head[-1] = 0
        head = head.reshape([sizes[k] if axis == k else 1 for axis in range(exits)])
        macs += staying(k, everyone) * (sections[k] + head)
    return right, macs + staying(exits, everyone) * sections[-1]
