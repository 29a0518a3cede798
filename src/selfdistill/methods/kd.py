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
from ..functional.divergence import standardize_logits
from ..modules.logit_checks import check_standardizable


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

    With `standardize_logits` (Sun et al. 2024, https://arxiv.org/abs/2403.01427) the logits of both
    networks first get mean 0 and standard deviation 1 over the classes of each image or pixel: the
    student learns how the teacher's logits relate, and need not spread its own as far. τ is then in
    units of that deviation. The authors' command for CIFAR-100 sets `temperature=2` and
    `soft_weight=9`, and keeps the supervised weight of 0.1; by their logs 7 of 14 pairs of networks
    were trained so, 5 with τ = 3, one with τ = 3 and a weight of 1, one with 4 and 12. Joined with
    `kd`, as in `at+kd`, a method of features gets this soft loss, too.

    Args:
        student: the network.
        teacher: a trained network for the same task.
        task: what the labels mean.
        supervised_weight: weight γ ≥ 0 of the supervised loss; the benchmark's 0.1. 0 leaves it
            out.
        soft_weight: weight α ≥ 0 of the soft loss; the benchmark's 0.9. 0 leaves it out.
        temperature: τ > 0 of the soft loss; the benchmark's 4.
        standardize_logits: whether to standardize the logits before they are softened; set
            temperature and soft weight with it, see above.
    """

    kind = "offline"
    provenance = Provenance.BENCHMARK
    needs = Needs(teacher_scores=True, images=False)
    teacher_reads = "outputs"

    def __init__(
        self,
        student: nn.Module,
        teacher: Frozen,
        task: Task,
        *,
        supervised_weight: float = 0.1,
        soft_weight: float = 0.9,
        temperature: float = 4.0,
        standardize_logits: bool = False,
    ) -> None:
        super().__init__()
        if standardize_logits:
            check_standardizable(task)
        if not (supervised_weight or soft_weight):
            raise ConfigError("kd needs a loss: set supervised_weight or soft_weight above 0")
        self.student, self.teacher, self.task = student, teacher, task
        self.supervised_weight, self.soft_weight = supervised_weight, soft_weight
        self.temperature, self.standardize_logits = temperature, standardize_logits

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft`, as far as they have a weight."""
        outputs = self.student(batch.inputs)
        losses = {}
        if self.supervised_weight:
            losses["task"] = self.supervised_weight * self.task.loss(outputs, batch.targets)
        if self.soft_weight:
            pair = outputs, self.teacher.outputs(batch)
            if self.standardize_logits:
                pair = standardize_logits(pair[0]), standardize_logits(pair[1])
            mask = self.task.valid_mask(batch.targets)
            soft = self.task.soft_loss(*pair, self.temperature, mask=mask)
            losses["soft"] = self.soft_weight * soft
        return StepOutput(outputs, losses)
