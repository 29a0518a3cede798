"""A neural estimate of the information that a local and a global view share."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core import ConfigError
from ..functional.mutual_information import ESTIMATORS
from .critics import CRITICS, GlobalCritic


class InformationEstimate(NamedTuple):
    """The loss of one estimator and the mean size of its critic's scores (detached), both 0-d."""

    loss: Tensor
    score: Tensor


class MutualInformationLoss(nn.Module):
    r"""The loss whose fall means more information between two views, with its critics.

    The mean of a local critic's loss and, with weight `global_share`, of a global critic's,
    normalized so that chance stays at 2 log 2: (local + a · global) / (1 + a). Deep InfoMax's port
    uses a = 0.5.

    Args:
        local, glob: channels of the views (B, local, H, W) and (B, glob).
        critic: ``"separable"``, ``"concat"`` or ``"global"``, see `modules/critics.py`.
        width: of the critic; None takes the critic's own (128 separable, 512 otherwise).
        negatives: ``"all"`` or ``"roll"``; None takes all pairs for a separable critic.
        estimator: ``"jsd"``, ``"infonce"``, ``"dv"`` or ``"nwj"``, see
            `functional/mutual_information.py`.
        global_share: a above; 0 leaves the global critic out.
    """

    def __init__(
        self,
        local: int,
        glob: int,
        *,
        critic: str = "separable",
        width: int | None = None,
        negatives: str | None = None,
        estimator: str = "jsd",
        global_share: float = 0.0,
    ) -> None:
        super().__init__()
        if global_share < 0:
            raise ConfigError(f"global_share is a weight of 0 or more, not {global_share}")
        if negatives == "all" and critic != "separable":
            raise ConfigError(f"a {critic} critic cannot score all pairs; use negatives='roll'")
        self.roll = negatives == "roll" or critic != "separable"
        size = {} if width is None else {"width": width}
        self.local_critic = CRITICS[critic](local, glob, **size)
        self.global_critic = GlobalCritic(local, glob) if global_share else None
        self.estimate, self.global_share = ESTIMATORS[estimator], global_share

    def forward(
        self, local: Tensor, glob: Tensor, shift: Tensor, alike: Tensor | None = None
    ) -> InformationEstimate:
        """The loss of views (B, local, H, W) and (B, glob).

        `shift` (0-d, 1 … B-1) makes the rolled negatives; `same_class_mask` (B, B) says which
        images belong together, where all pairs are scored and the loss is the Jensen-Shannon one.
        """
        critic = self.local_critic
        scores = critic(local, glob, shift) if self.roll else critic(local, glob, alike=alike)
        loss = self.estimate(*scores)
        if self.global_critic is not None:
            beside = self.estimate(*self.global_critic(local, glob, shift))
            loss = (loss + self.global_share * beside) / (1 + self.global_share)
        return InformationEstimate(loss, _size(scores.positive.detach().float()))


def _size(scores: Tensor) -> Tensor:
    """Mean size of the scores that are there."""
    there = scores < torch.inf
    return scores.masked_fill(~there, 0).abs().sum() / there.sum()
