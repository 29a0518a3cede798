from torch import Tensor, nn

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
from ..functional.divergence import soft_cross_entropy
from ..functional.labeled_class import at_label, without_label


@METHODS.add("nkd")
class NormalizedDistillation(Method):
    r"""Match the teacher's target-class probability, and its non-target classes normalized (NKD).

    Yang et al. 2023, https://arxiv.org/abs/2303.13005. The other classes than the label y are
    normalized among themselves, at the temperature τ, to :math:`\hat p`:

    .. math:: L = L_{task} - \alpha \, \overline{p^t_y \log p^s_y} - \gamma \tau^2 \,
        \overline{\sum_{k \ne y} \hat p^t_k \log \hat p^s_k}

    The first term is a cross-entropy with the label, as weighty as the teacher is sure of it, and
    has no temperature. The second is that of `dkd` but for the teacher's entropy, which has no
    gradient; `dkd`'s first term also counts the probability of all other classes together.

    Defaults are those of the authors' code for ResNets on ImageNet. It has γ = 1 for DeiT-Tiny, and
    on CIFAR-100 γ = 3.5 and τ = 3. For mixtures of two labels it takes the larger one; we refuse
    mixtures. `uskd` is the authors' method without a teacher.

    Args:
        student: the network.
        teacher: a trained network for the same classes.
        task: what the labels mean; each image has one class.
        supervised_weight: weight ≥ 0 of the supervised loss; 1 in the code. 0 leaves it out.
        target_class_weight: weight α ≥ 0 of the first term; 1 in the code. 0 leaves it out.
        non_target_class_weight: weight γ ≥ 0 of the second term, that of the other classes; 1.5 in
            the code. 0 leaves it out. Of two classes it has nothing to say.
        temperature: τ > 0 of the other classes; 1 in the code.
    """

    kind = "offline"
    provenance = Provenance.CODE
    needs = Needs(image_labels=True, single_label=True, teacher_scores=True)
    teacher_reads = "outputs"

    def __init__(
        self,
        student: nn.Module,
        teacher: Frozen,
        task: Task,
        *,
        supervised_weight: float = 1.0,
        target_class_weight: float = 1.0,
        non_target_class_weight: float = 1.5,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if not (supervised_weight or target_class_weight or non_target_class_weight):
            raise ConfigError(
                "nkd needs a loss: set supervised_weight, target_class_weight or "
                "non_target_class_weight above 0"
            )
        self.student, self.teacher, self.task = student, teacher, task
        self.supervised_weight, self.temperature = supervised_weight, temperature
        self.target_class_weight = target_class_weight
        self.non_target_class_weight = non_target_class_weight

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `target` and `others`, as far as they have a weight."""
        outputs = self.student(batch.inputs)
        losses = {}
        if self.supervised_weight:
            losses["task"] = self.supervised_weight * self.task.loss(outputs, batch.targets)
        reference = self.teacher.outputs(batch)
        if self.target_class_weight:
            loss = target_class_loss(outputs, reference, batch.targets)
            losses["target"] = self.target_class_weight * loss
        if self.non_target_class_weight:
            loss = other_classes_loss(outputs, reference, batch.targets, self.temperature)
            losses["others"] = self.non_target_class_weight * loss
        return StepOutput(outputs, losses)


def target_class_loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, K) with the labels (B,), weighted by the teacher's confidence."""
    confidence = at_label(teacher.float().softmax(1), labels)
    return -(confidence * at_label(student.float().log_softmax(1), labels)).mean()


def other_classes_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """τ² times the cross-entropy among the classes that are not the label, of logits (B, K)."""
    softened = (without_label(z.float(), labels) / temperature for z in (student, teacher))
    others, reference = softened
    return temperature**2 * soft_cross_entropy(others, reference.softmax(1))
