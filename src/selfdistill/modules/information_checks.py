"""What goes with a loss of mutual information: its options, its negatives and its warnings."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..core import ConfigError, Progress
from ..core.keyed_random import integers
from ..functional.information_bounds import CHANCE

POSITIVE_ESTIMATORS = frozenset({"jsd", "infonce"})
"""Those whose loss stays above zero, so that a product of two falls with each of them."""


def active_weights(
    mi_weight: float, si_weight: float, information_weight: float, combine: str, estimator: str
) -> dict[str, float]:
    """The weights (in a product exponents) of MI, "mutual", and SI, "self", without zeros.

    Raises:
        ConfigError: a product of losses that may be negative.
    """
    if combine == "mul" and estimator not in POSITIVE_ESTIMATORS:
        raise ConfigError(
            f"a product needs losses that stay above zero, and '{estimator}' does not; "
            "use estimator='jsd' or combine='add'"
        )
    weights = {"mutual": mi_weight, "self": si_weight}
    return {term: weight for term, weight in weights.items() if weight and information_weight}


def draw_shift(purpose: int, batch_size: int, progress: Progress) -> Tensor:
    """By how many places the batch is rolled to make negatives in a step: 0-d, 1 … B-1.

    A single image is its own neighbor; it has no negatives, see `without_negatives`.
    """
    return 1 + integers(max(batch_size - 1, 1), purpose, progress.seed, progress.step)


def without_negatives(vector: Tensor) -> Tensor | None:
    """The loss of one image, which has no negatives: chance, without a gradient; else None.

    So an image that is left over at the end of an epoch skips the term.
    """
    return vector.new_full((), CHANCE, dtype=torch.float32) if len(vector) < 2 else None


def chance_warnings(losses: Mapping[str, float]) -> dict[str, str]:
    """Warnings of Jensen-Shannon losses within 2 % of chance: their critics learned nothing."""
    return {
        name: "still at chance, 1.386 (2 ln 2): the critic finds nothing in common"
        for name, loss in losses.items()
        if abs(loss - CHANCE) < 0.02 * CHANCE
    }


def loss_warnings(losses: Mapping[str, float]) -> dict[str, str]:
    """Warnings of Jensen-Shannon losses at chance, or near zero, where their gradient vanishes."""
    return chance_warnings(losses) | {
        name: "saturated, below 0.001: the critic is always right, and its gradient vanishes"
        for name, loss in losses.items()
        if loss < 1e-3
    }
