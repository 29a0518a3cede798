"""Mutual information of feature maps and vectors as a loss: Eq. 4, 5 and 6 of MUSE.

Gong et al. 2021, https://arxiv.org/abs/2110.12606. A critic scores how well the cells of a map
(B, C, H, W) and a vector (B, D) go together; `jensen_shannon` (Eq. 5) is the loss of its scores.
`StageInformation` has such losses, MI_i and SI_i, for stage i. Its critics learn each of them, and
the features follow their weighted sum (Eq. 4) or product (Eq. 6).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import ConfigError, Progress
from ..core.keyed_random import purpose
from ..functional.gradient_routing import scale_grad
from ..functional.information_bounds import (
    BOUNDS,
    CHANCE,
    Scores,
    mean_size,
    num_scores,
)
from ..functional.places import mean_over_places
from .critics import CRITICS
from .global_critic import GlobalCritic
from .information_checks import draw_shift, loss_warnings, without_negatives

_NEGATIVES = purpose("muse.negatives")


def jensen_shannon(positive: Tensor, negative: Tensor, with_own: bool = False) -> Tensor:
    r"""The Jensen-Shannon loss of MUSE, Eq. 5, from `Scores`; 0-d, in nats, in fp32.

    .. math:: L = E_{neg}[sp(T)] + E_{pos}[sp(-T)], \quad sp(a) = \log(1 + e^a)

    Eq. 5 writes the second term as :math:`-E[-sp(-T)]`, which is the same. Its optimum is
    :math:`2\log 2 - 2\,JSD(p(x,y)\,\|\,p(x)p(y))`, in (0, 2 log 2]. Deep InfoMax's code shifts both
    expectations by log 2: the loss is negative then, and a product of losses means nothing.
    """
    positive, negative = positive.float(), negative.float()
    if with_own:
        others = F.softplus(negative).sum() - F.softplus(positive).sum()
        number = max(1, negative.numel() - positive.numel())
        # by rounding the others can be below 0
        return F.softplus(-positive).mean() + others.clamp(min=0) / number
    positive_loss = F.softplus(-positive).sum() / num_scores(-positive)
    return positive_loss + F.softplus(negative).sum() / num_scores(negative)


ESTIMATORS = {"jsd": jensen_shannon, **BOUNDS}
"""Losses by the name a user gives; all but InfoNCE and Jensen-Shannon can be negative."""


class InformationEstimate(NamedTuple):
    """The loss and the mean size of the critic's positive scores (detached), both 0-d."""

    loss: Tensor
    score: Tensor


class MutualInformationLoss(nn.Module):
    r"""A critic and its loss, whose fall means more information shared by a map and a vector.

    With a global critic beside it (loss + a · global loss) / (1 + a), at chance still 2 log 2.

    Args:
        map_channels, vector_channels: C and D.
        critic: ``"separable"``, ``"concat"`` or ``"global"``.
        critic_width: None takes the critic's own (128 separable, 512 otherwise).
        negatives: ``"all"`` other images or ``"roll"``, one; None takes all for a separable critic.
        estimator: ``"jsd"``, ``"infonce"``, ``"dv"`` or ``"nwj"``.
        global_critic_weight: a ≥ 0; 0 leaves the global critic out.
    """

    def __init__(
        self,
        map_channels: int,
        vector_channels: int,
        *,
        critic: str = "separable",
        critic_width: int | None = None,
        negatives: str | None = None,
        estimator: str = "jsd",
        global_critic_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if global_critic_weight < 0:
            raise ConfigError(f"global_critic_weight is 0 or more, not {global_critic_weight}")
        if negatives == "all" and critic != "separable":
            raise ConfigError(f"a {critic} critic cannot score all pairs; use negatives='roll'")
        self.roll = negatives == "roll" or critic != "separable"
        channels = (map_channels, vector_channels)
        width = () if critic_width is None else (critic_width,)
        self.local_critic = CRITICS[critic](*channels, *width)
        self.global_critic = GlobalCritic(*channels) if global_critic_weight else None
        self.estimate, self.global_critic_weight = ESTIMATORS[estimator], global_critic_weight

    def forward(
        self,
        feature_map: Tensor,
        vector: Tensor,
        shift: Tensor,
        same_class_mask: Tensor | None = None,
        pressure: Tensor | float = 1.0,
    ) -> InformationEstimate:
        """The loss of (B, C, H, W) and (B, D), see `SeparableCritic`; chance without negatives.

        `pressure` multiplies its gradient for map and vector, not that for the critic.
        """
        if (chance := without_negatives(vector)) is not None:
            return InformationEstimate(chance, torch.zeros_like(chance))
        feature_map, vector = scale_grad(feature_map, pressure), scale_grad(vector, pressure)
        views, pairs = (feature_map, vector), (shift,) if self.roll else (None, same_class_mask)
        scores: Scores = self.local_critic(*views, *pairs)
        loss = self.estimate(*scores)
        if same_class_mask is not None:  # all of one class have no negatives
            loss = torch.where(same_class_mask.all(), CHANCE, loss)
        if self.global_critic is not None:
            weight, global_scores = self.global_critic_weight, self.global_critic(*views, shift)
            loss = (loss + weight * self.estimate(*global_scores)) / (1 + weight)
        return InformationEstimate(loss, mean_size(scores))


StageEstimates = Mapping[str, InformationEstimate]
"""The estimates of one stage, "mutual" (MI) and "self" (SI), as far as they have a weight."""


class StageInformation(nn.ModuleDict):
    r"""MI_i and SI_i of the shallow stages of one network, a critic for each.

    MI_i is the loss between a map of stage i and a deep feature's vector (where there are several,
    the mean over them), SI_i that between the map and a vector of the same stage. Critics learn
    MI_i and SI_i at their full rate, whatever the weights. The features follow the gradient of

    .. math:: w_1 MI_i + w_2 SI_i \;\text{(Eq. 4)} \quad\text{or}\quad
        MI_i^{w_1} SI_i^{w_2} \;\text{(Eq. 6)}

    for which each loss gets its weight, or its factor in the product rule, at the critic's inputs.

    Args:
        weights: of "mutual" and "self", as `active_weights` gives them; no others get critics.
        map_channels: of the stages' maps, shallowest first.
        deep_channels: of each deep feature.
        si_channels: of the vectors of SI; None where they are the pooled maps.
        combine: "add" (Eq. 4) or "mul" (Eq. 6).
        loss: makes a `MutualInformationLoss` from the channels of map and vector.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        map_channels: Sequence[int],
        deep_channels: Sequence[int],
        *,
        si_channels: Sequence[int] | None = None,
        combine: str = "add",
        loss: Callable[[int, int], MutualInformationLoss] = MutualInformationLoss,
    ) -> None:
        super().__init__()
        self.weights, self.combine = dict(weights), combine
        pairs = {  # of MI all stages of one deep feature first
            "mutual": [(c, deep) for deep in deep_channels for c in map_channels],
            "self": list(zip(map_channels, si_channels or map_channels, strict=True)),
        }
        for term in weights:
            self[term] = nn.ModuleList(loss(*channels) for channels in pairs[term])

    def forward(
        self,
        maps: Sequence[Tensor],
        deep_vectors: Sequence[Tensor],
        progress: Progress,
        *,
        si_vectors: Sequence[Tensor] | None = None,
        same_class_mask: Tensor | None = None,
    ) -> list[StageEstimates]:
        """The estimates of every stage from its map (B, C, H, W) and vectors (B, D)."""
        shift = draw_shift(_NEGATIVES, len(deep_vectors[0]), progress)
        stages: list[StageEstimates] = []
        for i, feature_map in enumerate(maps):
            si_vector = mean_over_places(feature_map) if si_vectors is None else si_vectors[i]
            vectors = {"mutual": deep_vectors, "self": [si_vector]}
            estimates = {}  # functions of the pressure
            for term in self.weights:
                critics = list(self[term].children())[i :: len(maps)]
                pairs = [(feature_map, vector, shift, same_class_mask) for vector in vectors[term]]
                estimates[term] = partial(_mean_estimate, critics, pairs)
            pressures: Mapping[str, Tensor | float] = self.weights
            if self.combine == "mul":
                with torch.no_grad():
                    losses = {term: estimate(1.0).loss for term, estimate in estimates.items()}
                pressures = product_rule(losses, self.weights)
            stages.append({term: estimates[term](pressures[term]) for term in self.weights})
        return stages

    def losses(self, stages: Sequence[StageEstimates]) -> dict[str, Tensor]:
        """`mutual/i` and `self/i`, whose sum is to be minimized."""
        return {f"{term}/{i}": e.loss for i, s in enumerate(stages, 1) for term, e in s.items()}

    def monitors(self, stages: Sequence[StageEstimates]) -> dict[str, Tensor]:
        """`mutual/i` and `self/i`, in a product `product/i`, and the critics' scores, `score/…`."""
        estimates = {f"{term}/{i}": e for i, s in enumerate(stages, 1) for term, e in s.items()}
        values = {name: e.loss.detach() for name, e in estimates.items()}
        if self.combine == "mul":
            for i, stage in enumerate(stages, 1):
                powers = [values[f"{term}/{i}"] ** self.weights[term] for term in stage]
                values[f"product/{i}"] = torch.stack(powers).prod()
        return values | {f"score/{name}": e.score for name, e in estimates.items()}

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Warnings of Jensen-Shannon losses at chance or near zero, which silences a product."""
        critics = [part for part in self.modules() if isinstance(part, MutualInformationLoss)]
        if any(critic.estimate is not jensen_shannon for critic in critics):
            return {}
        return loss_warnings({n: v for n, v in monitors.items() if n.split("/")[0] in self.weights})


def product_rule(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    r"""The derivative of :math:`\prod_t L_t^{w_t}` by each loss L_t."""
    derivatives: dict[str, Tensor] = {}
    for term, weight in weights.items():
        derivative = weight * losses[term] ** (weight - 1)
        for other in weights.keys() - {term}:
            derivative = derivative * losses[other] ** weights[other]
        derivatives[term] = derivative
    return derivatives


def _mean_estimate(
    critics: Sequence[nn.Module],
    pairs: Sequence[tuple[Tensor, Tensor, Tensor, Tensor | None]],
    pressure: Tensor | float,
) -> InformationEstimate:
    """The mean over the pairs of a map and a vector, each of which has a critic."""
    estimates: list[InformationEstimate] = [
        critic(*pair, pressure) for critic, pair in zip(critics, pairs, strict=True)
    ]
    if len(estimates) == 1:
        return estimates[0]
    return InformationEstimate(*(torch.stack(e).mean() for e in zip(*estimates, strict=True)))
