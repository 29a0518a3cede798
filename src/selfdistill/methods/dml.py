from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core import METHODS, Batch, ConfigError, Method, Progress, Provenance, StepOutput, Task


@METHODS.add("dml")
class DeepMutualLearning(Method):
    r"""Networks trained together, each of which learns what the others say now.

    Zhang et al. 2018, https://arxiv.org/abs/1706.00384. Of K networks with logits :math:`z_k`,
    network k learns

    .. math:: L_k = L_{task}(z_k) + \frac{1}{K - 1} \sum_{l \ne k} KL(sg\, p_l \,\|\, p_k)

    Paper and authors' code move one network after the other: the second learns from a first one
    that has moved already, and the authors' code draws a new batch for each move. Here, as in most
    later code, all networks see one batch and move at once, each away from where the others were
    before the step: one forward pass a network, one backward pass, one optimizer. What a network
    is told is detached, so that the gradient of the sum is for each network that of its own
    :math:`L_k`; without that a network would also be drawn towards whoever listens to it.

    Networks that start with the same weights stay the same and teach each other nothing.

    Args:
        student: the network that is kept.
        peers: networks of any kind, one or more.
        task: what the labels mean.
        soft: weight of the soft terms, already a mean over the other networks; the paper has 1.
        temperature: of the soft terms; the paper has 1. They are scaled by its square.
    """

    kind = "online"
    provenance = Provenance.CODE

    def __init__(
        self,
        student: nn.Module,
        peers: Sequence[nn.Module],
        task: Task,
        *,
        soft: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if not peers:
            raise ConfigError("networks that teach one another are two or more: give --peer MODEL")
        self.student, self.peers, self.task = student, nn.ModuleList(peers), task
        self.soft, self.temperature = soft, temperature

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft` of the student, `peer1/task`, `peer1/soft`, … of the others."""
        said = [network(batch.inputs) for network in (self.student, *self.peers)]
        losses: dict[str, Tensor] = {}
        for k, out in enumerate(said):
            place = f"peer{k}/" if k else ""
            losses[f"{place}task"] = self.task.loss(out, batch.targets)
            if self.soft:
                losses[f"{place}soft"] = self.soft * self._told(out, said[:k] + said[k + 1 :])
        return StepOutput(said[0], losses)

    def _told(self, out: Any, others: list[Any]) -> Tensor:
        """The mean over the other networks of the soft loss towards each."""
        each = [self.task.soft_loss(out, o.detach(), self.temperature) for o in others]
        return torch.stack(each).mean()

    def predictors(self) -> dict[str, nn.Module]:
        """`peer1`, `peer2`, … and `student`."""
        peers = {f"peer{k}": peer for k, peer in enumerate(self.peers, 1)}
        return {**peers, "student": self.student}
