from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..core import METHODS, Batch, ConfigError, Progress, Provenance, StepOutput, Task
from ..modules.exits import ExitMethod, Exits
from ..taps import Taps


@METHODS.add("dks")
class KnowledgeSynergy(ExitMethod):
    r"""Deep supervision of exits that match each other's class distributions, every pair both ways.

    Deeply-supervised knowledge synergy (DKS), Sun et al. 2019, https://arxiv.org/abs/1906.00675.
    With the outputs :math:`z_1, \ldots, z_T` of all exits, the last one the student's own,

    .. math:: L = L_{task}(z_T) + \sum_{i < T} a L_{task}(z_i)
        + b \sum_i \sum_{j \ne i} L_{soft}(z_i, sg\, z_j)

    Unlike in `exits`, a shallow exit teaches the deep ones, too. Each pair is matched in both
    directions, and the side that teaches is detached, as in the authors' code, whose a, b and τ are
    1. The port in Self-KD-Lib has τ = 4 with the factor τ².

    The loss is the authors'; the exits are not. Theirs are as deep as what follows the tap, or half
    as deep or twice as wide, and differ from network to network; ours are bottlenecks, on every tap
    but the last. They stay behind as exits, where the paper drops them.

    Args:
        student: a network with two taps or more.
        task: what the labels mean.
        supervised_weight: weight a ≥ 0 of an exit's supervised loss; 1 in the code. 0 leaves it
            out.
        soft_weight: weight b ≥ 0 of the soft loss of each ordered pair; 1 in the code. 0 leaves
            them out.
        temperature: τ > 0 of the soft losses; 1 in the code.
        bottleneck: exit head, "byot" (the BYOT port's) or "slim" (pools first); chosen here.
    """

    kind = "self"
    provenance = Provenance.PAPER

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        supervised_weight: float = 1.0,
        soft_weight: float = 1.0,
        temperature: float = 1.0,
        bottleneck: Literal["byot", "slim"] = "byot",
    ) -> None:
        super().__init__()
        if not (supervised_weight or soft_weight):
            raise ConfigError(
                "exits need a loss: give supervised_weight or soft_weight a value above 0"
            )
        self.student, self.task = student, task
        self.exits = Exits(student, task, bottleneck)
        self.supervised_weight, self.soft_weight = supervised_weight, soft_weight
        self.temperature = temperature

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft` of the student, the sum over the exits that teach; `task/i`, `soft/i`.

        Where no two outputs can be compared, as of some detectors, there is no soft loss.
        """
        outputs, features = self.student.forward_features(batch.inputs)
        _, exit_outputs = self.exits(features)
        losses = {"task": self.task.loss(outputs, batch.targets)}
        everyone = [outputs, *exit_outputs]
        mask = self.task.valid_mask(batch.targets)
        for i, learner in enumerate(everyone):
            suffix = f"/{i}" if i else ""
            if i and self.supervised_weight:
                loss = self.task.loss(learner, batch.targets)
                losses[f"task{suffix}"] = self.supervised_weight * loss
            others = everyone[:i] + everyone[i + 1 :]
            soft = self._soft_losses(learner, others, mask) if self.soft_weight else []
            if soft:
                losses[f"soft{suffix}"] = self.soft_weight * torch.stack(soft).sum()
        return StepOutput(outputs, losses)

    def _soft_losses(
        self, learner: Any, others: Sequence[Any], mask: Tensor | None
    ) -> list[Tensor]:
        """Towards each of the others that can be compared, without a gradient to it."""
        return [
            self.task.soft_loss(learner, other.detach(), self.temperature, mask=mask)
            for other in others
            if self.task.outputs_compatible(learner, other)
        ]
