import torch
from torch import nn

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Frozen,
    Method,
    Needs,
    Progress,
    Provenance,
    StepOutput,
    Task,
)


@METHODS.add("kd")
class KnowledgeDistillation(Method):
    r"""Match the teacher's temperature-softened class distribution (KL) in addition to the labels.

    Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2:

    .. math:: L = \gamma L_{task}(z_s) + \alpha \tau^2 KL\left(softmax(z_t / \tau) \,\|\,
        softmax(z_s / \tau)\right)

    The paper takes the soft cross-entropy, which differs from the divergence by the teacher's
    entropy and has the same gradient. Defaults are those of the CRD benchmark
    (https://arxiv.org/abs/1910.10699) for CIFAR-100. The divergence is summed over the classes and
    averaged over the images; with a mean over both, a common slip, it would be a hundred times
    smaller there.

    Args:
        student: the network.
        teacher: a trained network for the same task.
        task: what the labels mean.
        supervised_weight: weight γ ≥ 0 of the supervised loss; the benchmark's 0.1. 0 leaves it
            out.
        soft_weight: weight α ≥ 0 of the soft loss; the benchmark's 0.9. 0 leaves it out.
        temperature: τ > 0 of the soft loss; the benchmark's 4.
    """

    kind = "offline"
    provenance = Provenance.BENCHMARK
    needs = Needs(teacher_scores=True, images=False)

    def __init__(
        self,
        student: nn.Module,
        teacher: Frozen,
        task: Task,
        *,
        supervised_weight: float = 0.1,
        soft_weight: float = 0.9,
        temperature: float = 4.0,
    ) -> None:
        super().__init__()
        if not (supervised_weight or soft_weight):
            raise ConfigError("kd needs a loss: set supervised_weight or soft_weight above 0")
        self.student, self.teacher, self.task = student, teacher, task
        self.supervised_weight, self.soft_weight = supervised_weight, soft_weight
        self.temperature = temperature

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft`, as far as they have a weight."""
        outputs = self.student(batch.inputs)
        losses = {}
        if self.supervised_weight:
            losses["task"] = self.supervised_weight * self.task.loss(outputs, batch.targets)
        if self.soft_weight:
            with torch.no_grad():
                reference = self.teacher(batch.inputs)
            mask = self.task.valid_mask(batch.targets)
            soft = self.task.soft_loss(outputs, reference, self.temperature, mask=mask)
            losses["soft"] = self.soft_weight * soft
        return StepOutput(outputs, losses)
