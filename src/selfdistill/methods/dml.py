from collections.abc import Sequence

from torch import Tensor, nn

from ..core import METHODS, Batch, ConfigError, Progress, Provenance, StepOutput, Task
from ..modules.online import OnlineMethod, mean_soft_loss, term_prefix


@METHODS.add("dml")
class DeepMutualLearning(OnlineMethod):
    r"""Train several networks together, each matching the class distributions of the others (KL).

    Zhang et al. 2018, https://arxiv.org/abs/1706.00384. Of K networks with logits :math:`z_k`,
    network k learns

    .. math:: L_k = L_{task}(z_k) + \frac{1}{K - 1} \sum_{l \ne k} KL(sg\, p_l \,\|\, p_k)

    Paper and authors' code update one network after the other: the second learns from a first one
    that is updated already, and the authors' code draws a new batch for each update. Here, as in
    most later code, all networks see one batch and are updated at once: one forward pass a network,
    one backward pass, one optimizer. Targets are detached, so the gradient of the sum is for each
    network that of its own :math:`L_k`; otherwise a network would also learn to match the networks
    that it teaches.

    Networks that start with the same weights stay the same and teach each other nothing.

    Args:
        student: the network that is kept.
        peers: networks of any architecture, one or more.
        task: what the labels mean.
        soft_weight: weight ≥ 0 of the soft terms, each a mean over the other networks; the paper
            has 1. 0 leaves them out.
        temperature: τ > 0 of the soft terms, which are scaled by its square; the paper has 1.
    """

    provenance = Provenance.PAPER

    def __init__(
        self,
        student: nn.Module,
        peers: Sequence[nn.Module],
        task: Task,
        *,
        soft_weight: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if not peers:
            raise ConfigError("dml trains two networks or more: give --peer MODEL")
        self.student, self.peers, self.task = student, nn.ModuleList(peers), task
        self.soft_weight, self.temperature = soft_weight, temperature

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft` of the student, `peer1/task`, `peer1/soft`, … of the others."""
        outputs = [network(batch.inputs) for network in (self.student, *self.peers)]
        mask = self.task.valid_mask(batch.targets)
        losses: dict[str, Tensor] = {}
        for k, output in enumerate(outputs):
            prefix = term_prefix(k)
            losses[f"{prefix}task"] = self.task.loss(output, batch.targets)
            if self.soft_weight:
                others = outputs[:k] + outputs[k + 1 :]
                soft_loss = mean_soft_loss(self.task, output, others, self.temperature, mask)
                losses[f"{prefix}soft"] = self.soft_weight * soft_loss
        return StepOutput(outputs[0], losses)
