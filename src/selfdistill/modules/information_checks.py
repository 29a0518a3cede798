"""What goes with a loss of mutual information: its options, its negatives and its warnings."""

from collections.abc import Mapping

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

    Raises:
        ConfigError: a batch of one image.
    """
    if batch_size < 2:
        raise ConfigError(
            "mutual information needs a second image to compare with; batch 2 or more"
        )
    return 1 + integers(batch_size - 1, purpose, progress.seed, progress.step)


def chance_warnings(losses: Mapping[str, float]) -> dict[str, str]:
    """Warnings of Jensen-Shannon losses within 2 % of chance: their critics learned nothing."""
    return {
        name: f"is dead: {loss:.3f} is chance (2 ln 2); raise its weight"
        for name, loss in losses.items()
        if abs(loss - CHANCE) < 0.02 * CHANCE
    }


def saturation_warnings(losses: Mapping[str, float]) -> dict[str, str]:
    """Warnings of Jensen-Shannon losses near zero, whose gradient vanishes."""
    return {
        name: f"is saturated: {loss:.1e}; its critic is always right"
        for name, loss in losses.items()
        if loss < 1e-3
    }
