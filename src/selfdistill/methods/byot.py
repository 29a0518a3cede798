from typing import Literal

from torch import Tensor

from ..core import METHODS, Batch, ConfigError, Progress, Provenance, StepOutput, Task
from ..modules.exits import ExitMethod, Exits
from ..taps import Taps

BATCH = 128
"""Images over which the hint is a sum."""


@METHODS.add("byot")
class BeYourOwnTeacher(ExitMethod):
    r"""Deep supervision of exits, with soft labels and feature hints from the last exit.

    Zhang et al. 2019, https://arxiv.org/abs/1905.08094, Eq. 7:

    .. math:: L = (1 - \alpha) \sum_{i \le T} CE(z_i, y) + \alpha \sum_{i<T} KL(z_T \,\|\, z_i)
        + \lambda \sum_{i<T} \lVert f_i - f_T \rVert^2

    Defaults are those of the public port (luanyunteng/pytorch-be-your-own-teacher), whose recipe
    MUSE used for its BYOT rows: the hint is a *sum* over the pooled features (B, C), counted only
    where one of the two is positive. The port's batches have 128 images, so here it is 128 times
    the mean over the images: the same, and its weight depends neither on the batch nor on how that
    is split among passes and processes. Every supervised loss is scaled by 1 - alpha, the last
    exit's too; the last exit's logits and feature are detached. The port takes τ² times the
    soft cross-entropy, we the KL divergence: same gradient. The authors' own later code has another
    head and another hint (0.03 times an unsquared norm); we follow the port.

    Args:
        student: a network with two taps or more.
        task: what the labels mean.
        soft_weight: weight α of the soft terms, and one minus the weight of the supervised ones, in
            [0, 1]; the port's 0.1.
        hint_weight: weight λ of the feature term, a sum over 128 images; the port's 1e-6.
        temperature: of the soft loss; 3 in the port.
        bottleneck: exit head, "byot" (the port's) or "slim" (pools first).

    Raises:
        ConfigError: a weight beyond [0, 1].
    """

    kind = "self"
    provenance = Provenance.BENCHMARK

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        soft_weight: float = 0.1,
        hint_weight: float = 1e-6,
        temperature: float = 3.0,
        bottleneck: Literal["byot", "slim"] = "byot",
    ) -> None:
        super().__init__()
        if not 0 <= soft_weight <= 1:
            raise ConfigError(f"soft_weight={soft_weight:g} must be from 0 to 1")
        self.student, self.task = student, task
        self.supervised_weight, self.hint_weight = 1 - soft_weight, hint_weight
        self.exit_options = (self.supervised_weight, soft_weight, temperature)
        self.exits = Exits(student, task, bottleneck)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, and `task/i`, `soft/i`, `hint/i` of each exit but the last."""
        outputs, features, pooled = self.student.forward_pooled(batch.inputs)
        maps, exit_outputs = self.exits(features)
        losses = {"task": self.supervised_weight * self.task.loss(outputs, batch.targets)}
        losses |= self.exits.losses(exit_outputs, outputs, batch.targets, *self.exit_options)
        if self.hint_weight:
            for i, x in enumerate(maps, 1):
                square = masked_square(x.mean((2, 3)), pooled.detach())  # (B, C) both
                losses[f"hint/{i}"] = self.hint_weight * BATCH * square
        return StepOutput(outputs, losses)


def masked_square(x: Tensor, target: Tensor) -> Tensor:
    """Squared differences of (B, C) where one of the two is positive, in fp32.

    They are summed over the channels and averaged over the images.
    """
    x, target = x.float(), target.float()
    return ((x - target).square() * ((x > 0) | (target > 0))).sum(1).mean()
