"""The objective of MUSE: every stage informative about a deep feature (MI) and itself (SI)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..core import ConfigError, Progress
from ..core.keyed_random import integers, purpose
from ..functional.mutual_information import CHANCE, POSITIVE_ESTIMATORS
from .information import InformationEstimate, MutualInformationLoss

_NEGATIVES = purpose("muse.negatives")


def powers_of(
    mutual: float, self_information: float, *, information: float, combine: str, estimator: str
) -> dict[str, float]:
    """The terms that take part, of "mutual" and "self": weights in the sum, exponents in a product.

    Raises:
        ConfigError: a product of losses that may be negative.
    """
    if combine == "mul" and estimator not in POSITIVE_ESTIMATORS:
        raise ConfigError(
            f"a product needs losses that stay above zero, and '{estimator}' does not; "
            "use estimator='jsd' or combine='add'"
        )
    powers = {"mutual": mutual, "self": self_information}
    return {term: power for term, power in powers.items() if power and information}


class StageInformation(nn.ModuleDict):
    r"""MI and SI of the shallow stages of one network: a critic for each, and their sum or product.

    Gong et al. 2021, https://arxiv.org/abs/2110.12606. MI_i is the information loss between a map
    of stage i and a deep feature (where there are several, their mean), SI_i that between the map
    and its own pooled vector. Sum (Eq. 4) and product (Eq. 6) are those of the losses, with a
    weight.

    Args:
        powers: as `powers_of` gives them.
        local: channels of the stages' maps, shallowest first.
        deep: channels of each deep feature.
        own: channels of the stages' own vectors; None where they are the pooled maps.
        critic, width, negatives, estimator, global_share: of each `MutualInformationLoss`.
    """

    def __init__(
        self,
        powers: Mapping[str, float],
        local: Sequence[int],
        deep: Sequence[int],
        *,
        own: Sequence[int] | None = None,
        critic: str = "separable",
        width: int | None = None,
        negatives: str | None = None,
        estimator: str = "jsd",
        global_share: float = 0.0,
    ) -> None:
        super().__init__()
        self.powers, self.estimator = dict(powers), estimator
        pairs = {
            "mutual": [(c, g) for g in deep for c in local],  # all stages of one deep feature first
            "self": list(zip(local, local if own is None else own, strict=True)),
        }
        for term in self.powers:
            self[term] = nn.ModuleList(
                MutualInformationLoss(
                    c,
                    g,
                    critic=critic,
                    width=width,
                    negatives=negatives,
                    estimator=estimator,
                    global_share=global_share,
                )
                for c, g in pairs[term]
            )

    def forward(
        self,
        local: Sequence[Tensor],
        deep: Sequence[Tensor],
        progress: Progress,
        *,
        own: Sequence[Tensor] | None = None,
        alike: Tensor | None = None,
    ) -> dict[str, InformationEstimate]:
        """{"mutual/1": …, "self/1": …}: the raw losses of every stage.

        The stages' maps are (B, C, H, W), deep features and own vectors (B, D); `same_class_mask`
        (B, B) says which images belong together.
        """
        batch = len(deep[0])
        if batch < 2:
            raise ConfigError(
                "mutual information needs a second image to compare with; batch 2 or more"
            )
        shift = 1 + integers(batch - 1, _NEGATIVES, progress.seed, progress.step)
        found: dict[str, InformationEstimate] = {}
        for i, x in enumerate(local):
            its = x.mean((2, 3)) if own is None else own[i]
            for term, others in (("mutual", deep), ("self", [its])):
                if term in self.powers:
                    estimates = [
                        self.get_submodule(f"{term}.{i + j * len(local)}")(x, other, shift, alike)
                        for j, other in enumerate(others)
                    ]
                    found[f"{term}/{i + 1}"] = _mean(estimates)
        return found

    def terms(
        self, found: Mapping[str, InformationEstimate], *, combine: str, information: float
    ) -> dict[str, Tensor]:
        """`mutual/i` and `self/i` ("add") or `product/i` ("mul"), with their weights."""
        if combine == "add":
            weight = {term: information * power for term, power in self.powers.items()}
            return {name: weight[name.split("/")[0]] * e.loss for name, e in found.items()}
        products: dict[str, Tensor] = {}
        for name, estimate in found.items():
            term, stage = name.split("/")
            factor = estimate.loss ** self.powers[term]
            product = f"product/{stage}"
            products[product] = products.get(product, information) * factor
        return products

    def monitors(self, found: Mapping[str, InformationEstimate]) -> dict[str, Tensor]:
        """The raw losses, and the size of the critics' scores as `score/…`."""
        losses = {name: e.loss.detach() for name, e in found.items()}
        return losses | {f"score/{name}": e.score for name, e in found.items()}

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Terms that teach nothing: at chance, or solved, which silences a product whole."""
        if self.estimator != "jsd":
            return {}
        terms = {n: value for n, value in monitors.items() if n.split("/")[0] in self.powers}
        dead = {n: v for n, v in terms.items() if abs(v - CHANCE) < 0.02 * CHANCE}
        solved = {n: v for n, v in terms.items() if v < 1e-3}
        return {
            n: f"is dead: {v:.3f} is chance (2 ln 2); raise its weight" for n, v in dead.items()
        } | {n: f"is saturated: {v:.1e}; its critic is always right" for n, v in solved.items()}


def _mean(estimates: list[InformationEstimate]) -> InformationEstimate:
    """The mean of one stage's losses, and of their critics' scores, over several deep features."""
    if len(estimates) == 1:
        return estimates[0]
    losses, scores = zip(*estimates, strict=True)
    return InformationEstimate(torch.stack(losses).mean(), torch.stack(scores).mean())
