"""A neural estimate of the information that a local and a global view share."""

from typing import NamedTuple

from torch import Tensor, nn

from ..core import ConfigError
from ..functional.mutual_information import ESTIMATORS
from .critics import CRITICS, GlobalCritic


class Estimate(NamedTuple):
    """The loss of one estimator and the mean size of its critic's scores (detached), both 0-d."""

    loss: Tensor
    score: Tensor


class InformationLoss(nn.Module):
    r"""The loss whose fall means more information between two views, with its critics.

    The mean of a local critic's loss and, with weight `global_share`, of a global critic's,
    normalised so that chance stays at 2 log 2: (local + a · global) / (1 + a). Deep InfoMax's port
    uses a = 0.5.

    Args:
        local, glob: channels of the views (B, local, H, W) and (B, glob).
        critic: ``"separable"``, ``"concat"`` or ``"global"``, see `modules/critics.py`.
        width: of the critic; None takes the critic's own (128 separable, 512 otherwise).
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
        estimator: str = "jsd",
        global_share: float = 0.0,
    ) -> None:
        super().__init__()
        if global_share < 0:
            raise ConfigError(f"global_share is a weight of 0 or more, not {global_share}")
        size = {} if width is None else {"width": width}
        self.local_critic = CRITICS[critic](local, glob, **size)
        self.global_critic = GlobalCritic(local, glob) if global_share else None
        self.estimate, self.global_share = ESTIMATORS[estimator], global_share

    def forward(self, local: Tensor, glob: Tensor, shift: Tensor, *, roll: bool) -> Estimate:
        """The loss; negatives by `shift` (0-d, 1 … B-1) if `roll`, else all pairs."""
        scores = self.local_critic(local, glob, shift if roll else None)
        loss = self.estimate(*scores)
        if self.global_critic is not None:
            beside = self.estimate(*self.global_critic(local, glob, shift))
            loss = (loss + self.global_share * beside) / (1 + self.global_share)
        return Estimate(loss, scores.positive.detach().float().abs().mean())
