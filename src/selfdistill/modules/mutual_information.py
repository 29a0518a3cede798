"""Mutual information of feature maps and vectors as a loss: Eq. 4, 5 and 6 of MUSE.

Gong et al. 2021, https://arxiv.org/abs/2110.12606. A critic scores how well the cells of a map
(B, C, H, W) and a vector (B, D) go together; `jensen_shannon` (Eq. 5) is the loss of its scores.
`StageInformation` has such losses, MI_i and SI_i, for stage i, and `weighted_sum` (Eq. 4) or
`weighted_product` (Eq. 6) combines them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import ConfigError, Progress
from ..core.keyed_random import purpose
from ..functional.information_bounds import (
    BOUNDS,
    CHANCE,
    Scores,
    mean_size,
    num_scores,
    roll_batch,
)
from .global_critic import GlobalCritic
from .information_checks import draw_shift, loss_warnings, without_negatives

_NEGATIVES = purpose("muse.negatives")


def jensen_shannon(positive: Tensor, negative: Tensor) -> Tensor:
    r"""The Jensen-Shannon loss of MUSE, Eq. 5, from `Scores`; 0-d, in nats, in fp32.

    .. math:: L = E_{neg}[sp(T)] + E_{pos}[sp(-T)], \quad sp(a) = \log(1 + e^a)

    Eq. 5 writes the second term as :math:`-E[-sp(-T)]`, which is the same. Its optimum is
    :math:`2\log 2 - 2\,JSD(p(x,y)\,\|\,p(x)p(y))`, in (0, 2 log 2]. Deep InfoMax's code shifts both
    expectations by log 2: the loss is negative then, and a product of losses means nothing.
    """
    positive, negative = positive.float(), negative.float()
    positive_loss = F.softplus(-positive).sum() / num_scores(-positive)
    return positive_loss + F.softplus(negative).sum() / num_scores(negative)


ESTIMATORS = {"jsd": jensen_shannon, **BOUNDS}
"""Losses by the name a user gives; all but InfoNCE and Jensen-Shannon can be negative."""


class SeparableCritic(nn.Module):
    r"""A scaled dot product, :math:`\phi(cell) \cdot \psi(vector) / \sqrt{width}`.

    The encode-and-dot form of Deep InfoMax (https://arxiv.org/abs/1808.06670, section 3.1), divided
    by the root of the width, so that scores start near 0 and the loss near chance. φ is linear, ψ
    has two layers and a linear shortcut (two plain layers stay at a saddle for epochs). Then
    :math:`\phi(x) \cdot \psi(g) = x \cdot W^\top \psi(g)`: the cells are never encoded, and all B²
    pairs cost one matrix product, whatever the width.

    Args:
        map_channels, vector_channels: C and D.
        width: of the shared space.
    """

    def __init__(self, map_channels: int, vector_channels: int, width: int = 128) -> None:
        super().__init__()
        self.local = nn.Linear(map_channels, width)
        self.shortcut = nn.Linear(vector_channels, width)
        self.layers = nn.Sequential(
            nn.Linear(vector_channels, width), nn.ReLU(), nn.Linear(width, width, bias=False)
        )

    def forward(
        self,
        feature_map: Tensor,
        vector: Tensor,
        shift: Tensor | None = None,
        same_class_mask: Tensor | None = None,
    ) -> Scores:
        """Scores of N = H·W cells; the negatives of a vector are cells of other images.

        With a shift (0-d, 1 … B-1) those of one image, the batch rolled; without, of all. Positive
        are the pairs in `same_class_mask` (B, B) or, without one, each image with itself.
        """
        encoded = (self.shortcut(vector) + self.layers(vector)) / self.local.out_features**0.5
        query = encoded @ self.local.weight  # (B, C)
        offset = encoded @ self.local.bias  # (B,)
        cells = feature_map.flatten(2).transpose(1, 2)  # (B, N, C)
        if shift is not None:
            positive = (cells * query[:, None]).sum(-1) + offset[:, None]
            rolled = roll_batch(cells, shift)
            negative = (rolled * query[:, None]).sum(-1) + offset[:, None]
            return Scores(positive, negative[..., None])
        # [image of the vector, cell, image of the cell]
        scores = (cells @ query.T + offset).transpose(0, 2)
        if same_class_mask is None:
            same_image = torch.eye(len(vector), dtype=torch.bool, device=vector.device)
            positive = scores.diagonal(dim1=0, dim2=2).T
            return Scores(positive, scores.masked_fill(same_image[:, None], -torch.inf))
        positive = scores.masked_fill(~same_class_mask[:, None], torch.inf)
        return Scores(positive, scores.masked_fill(same_class_mask[:, None], -torch.inf))


class ConcatCritic(nn.Module):
    """1×1 convolutions over the map with the vector concatenated to each cell.

    The concat-and-convolve critic of Deep InfoMax (Fig. 4), the closest to what MUSE describes. Its
    first layer is split in two: the same function, but the vector's part is computed once an image.

    Args:
        map_channels, vector_channels: C and D.
        width: of both hidden layers.
    """

    def __init__(self, map_channels: int, vector_channels: int, width: int = 512) -> None:
        super().__init__()
        self.local = nn.Conv2d(map_channels, width, 1)
        self.vector = nn.Linear(vector_channels, width, bias=False)
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 1)
        )
        # the start that one layer over both inputs would have
        bound = (map_channels + vector_channels) ** -0.5
        for tensor in (self.local.weight, self.local.bias, self.vector.weight):
            nn.init.uniform_(tensor, -bound, bound)  # type: ignore[arg-type]

    def forward(self, feature_map: Tensor, vector: Tensor, shift: Tensor) -> Scores:
        """Scores (B, H·W) and (B, H·W, 1); `shift` as in `SeparableCritic`."""
        local, from_vector = self.local(feature_map), self.vector(vector)[..., None, None]
        positive = self.head(local + from_vector)
        negative = self.head(roll_batch(local, shift) + from_vector)
        return Scores(positive.flatten(1), negative.flatten(1)[..., None])


CRITICS = {"separable": SeparableCritic, "concat": ConcatCritic, "global": GlobalCritic}
"""Critic classes by the name a user gives; only the separable one can afford all pairs."""


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
    ) -> InformationEstimate:
        """The loss of (B, C, H, W) and (B, D), see `SeparableCritic`; chance without negatives."""
        if (chance := without_negatives(vector)) is not None:
            return InformationEstimate(chance, torch.zeros_like(chance))
        views, pairs = (feature_map, vector), (shift,) if self.roll else (None, same_class_mask)
        scores: Scores = self.local_critic(*views, *pairs)
        loss = self.estimate(*scores)
        if same_class_mask is not None:  # all of one class have no negatives
            loss = torch.where(same_class_mask.all(), CHANCE, loss)
        if self.global_critic is not None:
            weight, global_scores = self.global_critic_weight, self.global_critic(*views, shift)
            loss = (loss + weight * self.estimate(*global_scores)) / (1 + weight)
        return InformationEstimate(loss, mean_size(scores.positive.detach().float()))


StageEstimates = Mapping[str, InformationEstimate]
"""The estimates of one stage, "mutual" (MI) and "self" (SI), as far as they have a weight."""


class StageInformation(nn.ModuleDict):
    """MI_i and SI_i of the shallow stages of one network, a critic for each.

    MI_i is the loss between a map of stage i and a deep feature's vector (where there are several,
    the mean over them), SI_i that between the map and a vector of the same stage.

    Args:
        weights: of "mutual" and "self", as `active_weights` gives them; no others get critics.
        map_channels: of the stages' maps, shallowest first.
        deep_channels: of each deep feature.
        si_channels: of the vectors of SI; None where they are the pooled maps.
        loss: makes a `MutualInformationLoss` from the channels of map and vector.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        map_channels: Sequence[int],
        deep_channels: Sequence[int],
        *,
        si_channels: Sequence[int] | None = None,
        loss: Callable[[int, int], MutualInformationLoss] = MutualInformationLoss,
    ) -> None:
        super().__init__()
        self.weights = dict(weights)
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
            si_vector = feature_map.mean((2, 3)) if si_vectors is None else si_vectors[i]
            vectors = {"mutual": deep_vectors, "self": [si_vector]}
            stage: dict[str, InformationEstimate] = {}
            for term in self.weights:
                critics = list(self[term].children())[i :: len(maps)]
                estimates = [
                    critic(feature_map, vector, shift, same_class_mask)
                    for critic, vector in zip(critics, vectors[term], strict=True)
                ]
                means = [torch.stack(values).mean() for values in zip(*estimates, strict=True)]
                stage[term] = InformationEstimate(*means)
            stages.append(stage)
        return stages

    def monitors(self, stages: Sequence[StageEstimates]) -> dict[str, Tensor]:
        """The unweighted losses, `mutual/i` and `self/i`, and the critics' scores, `score/…`."""
        estimates = {f"{term}/{i}": e for i, s in enumerate(stages, 1) for term, e in s.items()}
        scores = {f"score/{name}": e.score for name, e in estimates.items()}
        return {name: e.loss.detach() for name, e in estimates.items()} | scores

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Warnings of Jensen-Shannon losses at chance or near zero, which silences a product."""
        critics = [part for part in self.modules() if isinstance(part, MutualInformationLoss)]
        if any(critic.estimate is not jensen_shannon for critic in critics):
            return {}
        return loss_warnings({n: v for n, v in monitors.items() if n.split("/")[0] in self.weights})


def weighted_sum(
    stages: Sequence[StageEstimates], weights: Mapping[str, float], scale: float
) -> dict[str, Tensor]:
    """`mutual/i` and `self/i`, the terms of Eq. 4: λ a MI_i and λ b SI_i."""
    return {
        f"{term}/{i}": scale * weights[term] * estimate.loss
        for i, stage in enumerate(stages, 1)
        for term, estimate in stage.items()
    }


def weighted_product(
    stages: Sequence[StageEstimates], weights: Mapping[str, float], scale: float
) -> dict[str, Tensor]:
    """`product/i`, the term of Eq. 6: λ MI_i^a SI_i^b."""
    products: dict[str, Tensor] = {}
    for i, stage in enumerate(stages, 1):
        for term, estimate in stage.items():
            product = products.get(f"product/{i}", scale)
            products[f"product/{i}"] = product * estimate.loss ** weights[term]
    return products
