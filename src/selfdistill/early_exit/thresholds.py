"""Confidence thresholds of early exits: their calibration, and the resulting accuracy and cost."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..core import ConfigError

Threshold = float | None
"""The lowest confidence to leave with, in (0, 1]; None if the exit is not used."""

_MAX_STEPS = 50  # thresholds tried at an exit
_MAX_COMBINATIONS = 1_000_000  # lowers the steps where there are many exits
_MAX_EXITS = 8  # with more, fewer than four thresholds would be tried at each


class ExitCosts(NamedTuple):
    """Multiply-adds of one image.

    Attributes:
        trunk: of the network from the input to each exit's tap, and of the full network.
        heads: of each exit's head.
    """

    trunk: tuple[int, ...]
    heads: tuple[int, ...]

    def per_exit(self, thresholds: Sequence[Threshold]) -> list[int]:
        """Cost of an image that leaves at each exit, and at the end, all used heads included."""
        heads = [0 if t is None else head for t, head in zip(thresholds, self.heads, strict=True)]
        return [trunk + sum(heads[: k + 1]) for k, trunk in enumerate(self.trunk)]


class ExitDecisions(NamedTuple):
    """Predictions of the exits and the student on some images.

    Attributes:
        confidence: of each exit, (N, exits) float32.
        correct: of each exit and, last, the student, (N, exits + 1) bool.
    """

    confidence: npt.NDArray[np.float32]
    correct: npt.NDArray[np.bool_]


class ThresholdOutcome(NamedTuple):
    """Accuracy and cost of thresholds on some images.

    Attributes:
        shares: fraction of the images that leaves at each exit, and at the end.
        accuracy: of the predictions that the images leave with.
        macs: mean multiply-adds per image.
    """

    shares: tuple[float, ...]
    accuracy: float
    macs: float


def as_thresholds(
    threshold: Threshold | Iterable[Threshold], exits: Sequence[str]
) -> tuple[Threshold, ...]:
    """One threshold per exit, from one for all or one each.

    Raises:
        ConfigError: another number of thresholds than of exits, one outside (0, 1], or all None.
    """
    thresholds = list(threshold) if isinstance(threshold, Iterable) else [threshold] * len(exits)
    if len(thresholds) != len(exits):
        raise ConfigError(
            f"there are {len(exits)} exits ({', '.join(exits)}) and {len(thresholds)} thresholds; "
            "give one for all, or one each"
        )
    for t in thresholds:
        if t is not None and not 0 < t <= 1:
            raise ConfigError(
                f"a threshold is a confidence, above 0 and at most 1, not {t:g}; "
                "0.9 lets go of what an exit is 90 % sure of"
            )
    if all(t is None for t in thresholds):
        raise ConfigError(
            "without a threshold at any exit no image leaves early; give one a number"
        )
    return tuple(None if t is None else float(t) for t in thresholds)


def threshold_outcome(
    decisions: ExitDecisions, costs: ExitCosts, thresholds: Sequence[Threshold]
) -> ThresholdOutcome:
    """Accuracy and cost if each image leaves at the first exit whose threshold it reaches."""
    images = len(decisions.correct)
    exits = np.full(images, len(thresholds))
    for k, t in reversed(list(enumerate(thresholds))):
        if t is not None:
            exits[decisions.confidence[:, k] >= np.float32(t)] = k
    counts = np.bincount(exits, minlength=len(thresholds) + 1)
    accuracy = decisions.correct[np.arange(images), exits].mean()
    macs = counts @ np.array(costs.per_exit(thresholds)) / images
    return ThresholdOutcome(tuple((counts / images).tolist()), float(accuracy), float(macs))


def calibrate_thresholds(
    decisions: ExitDecisions, costs: ExitCosts, max_loss: float
) -> tuple[Threshold, ...]:
    """The thresholds with the lowest mean multiply-adds within an allowed loss of accuracy.

    The search is exhaustive: at each exit the thresholds by which 1/50, 2/50, … of the images leave
    (coarser steps with more than three exits), and no use of the exit, which saves its head. Exits
    differ in calibration, so each has its own threshold. Since all combinations are compared, a
    larger allowed loss never costs more.

    Args:
        decisions: on validation images, never on those of the reported result.
        costs: of the same exits.
        max_loss: largest difference of the accuracy to the student's, in [0, 1).

    Raises:
        ConfigError: `max_loss` is out of range, or there are too many exits for the search.
    """
    exits = decisions.confidence.shape[1]
    if not 0 <= max_loss < 1:
        raise ConfigError(
            f"the allowed loss is a part of all images, from 0 to below 1, not {max_loss:g}; "
            "0.01 is one point of accuracy"
        )
    if exits > _MAX_EXITS:
        raise ConfigError(
            f"thresholds of {exits} exits are too many to choose together ({_MAX_EXITS} at most); "
            "give them, or train with fewer taps"
        )
    steps = min(_MAX_STEPS, int(_MAX_COMBINATIONS ** (1 / exits)) - 1)
    grids = [_threshold_grid(column, steps) for column in decisions.confidence.T]
    correct, macs = _all_outcomes(decisions, costs, grids)
    student = decisions.correct[:, -1].sum()
    min_correct = student - max_loss * len(decisions.correct) - 1e-6
    macs[correct < min_correct] = np.iinfo(macs.dtype).max
    cheapest = np.flatnonzero(macs == macs.min())
    best = cheapest[correct.flat[cheapest].argmax()]
    indices = np.unravel_index(best, macs.shape)
    return tuple(
        float(grid[i]) if i < len(grid) else None for grid, i in zip(grids, indices, strict=True)
    )


def _threshold_grid(confidence: npt.NDArray[np.float32], steps: int) -> npt.NDArray[np.float32]:
    """Ascending thresholds by which all images leave, then fewer and fewer.

    Each is the midpoint of two observed confidences, so that rounding moves no image across it.
    """
    values = np.unique(confidence)
    lower = np.concatenate([values[:1] * 0, values[:-1]])
    shares = np.linspace(0, 1, steps + 1)[:-1]
    indices = np.searchsorted(values, np.quantile(confidence, shares, method="higher"))
    return np.unique((lower[indices] + values[indices]) / 2)


def _all_outcomes(
    decisions: ExitDecisions, costs: ExitCosts, grids: list[npt.NDArray[np.float32]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Correct images and total multiply-adds of all images, for each combination of thresholds.

    Axis k is exit k; index i on it is threshold i of its grid, the last index no use of the exit.
    """
    exits, sizes = len(grids), [len(grid) + 1 for grid in grids]
    columns = zip(grids, decisions.confidence.T, strict=True)
    reached = [np.searchsorted(grid, column, side="right") for grid, column in columns]

    def remaining(k: int, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """How many images of the mask have passed the first k exits."""
        cells = [np.zeros(mask.sum(), np.int64), *(indices[mask] for indices in reached[:k])]
        counts = np.zeros([1, *sizes[:k]], np.int64)
        np.add.at(counts, tuple(cells), 1)
        for axis in range(k):  # an image passes by every threshold from the first it misses on
            counts = counts.cumsum(axis + 1)
        return counts.reshape(sizes[:k] + [1] * (exits - k))

    all_images = np.ones(len(decisions.correct), np.bool_)
    correct = remaining(exits, decisions.correct[:, -1])
    macs = np.zeros(sizes, np.int64)
    sections = np.diff(costs.trunk, prepend=0)
    for k in range(exits):
        mask = decisions.correct[:, k]
        correct = correct + remaining(k, mask) - remaining(k + 1, mask)
        head = np.full(sizes[k], costs.heads[k])
        head[-1] = 0
        head = head.reshape([sizes[k] if axis == k else 1 for axis in range(exits)])
        macs += remaining(k, all_images) * (sections[k] + head)
    return correct, macs + remaining(exits, all_images) * sections[-1]
