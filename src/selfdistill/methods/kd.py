import torch
from torch import nn

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Frozen,
    Method,
    Progress,
    Provenance,
    StepOutput,
    Task,
)


@METHODS.add("kd")
class KnowledgeDistillation(Method):
    r"""Say what a frozen teacher says, softened, beside the labels.

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
        supervised: weight γ of the supervised loss; the benchmark's 0.1. 0 leaves it out.
        soft: weight α of the soft loss; the benchmark's 0.9. 0 leaves it out.
        temperature: τ > 0 of the soft loss; the benchmark's 4.
    """

    kind = "offline"
    provenance = Provenance.CODE

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        task: Task,
        *,
        supervised: float = 0.1,
        soft: float = 0.9,
        temperature: float = 4.0,
    ) -> None:
        super().__init__()
        if not (supervised or soft):
            raise ConfigError("kd needs a loss: give supervised or soft a weight")
        self.student, self.teacher, self.task = student, Frozen(teacher), task
        self.supervised, self.soft, self.temperature = supervised, soft, temperature

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft`."""
        out = self.student(batch.inputs)
        losses = {}
        if self.supervised:
            losses["task"] = self.supervised * self.task.loss(out, batch.targets)
        if self.soft:
            with torch.no_grad():
                reference = self.teacher(batch.inputs)
            losses["soft"] = self.soft * self.task.soft_loss(out, reference, self.temperature)
        return StepOutput(out, losses)

    def predictors(self) -> dict[str, nn.Module]:
        """The student alone."""
        return {"student": self.student}
