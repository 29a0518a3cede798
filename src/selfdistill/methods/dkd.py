from typing import NamedTuple

import torch
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
from ..functional.divergence import kl_divergence, standardize_logits
from ..functional.labeled_class import at_label, without_label
from ..modules.logit_checks import check_standardizable


@METHODS.add("dkd")
class DecoupledDistillation(Method):
    r"""Match the teacher's target-class and non-target-class distributions, weighted separately.

    Zhao et al. 2022, https://arxiv.org/abs/2203.08679, Eq. 7. With :math:`b = (p_y, 1 - p_y)` and
    :math:`\hat p` the softmax over all classes but the label y, both at temperature τ,

    .. math:: L = L_{task} + \min(1, f / w) \, \tau^2 \left[ \alpha \, KL(b^t \,\|\, b^s) + \beta \,
        KL(\hat p^t \,\|\, \hat p^s) \right]

    where f is the fraction of the run that is done. Plain distillation is the same with α = 1 and,
    for each image, :math:`\beta = 1 - p_y^t`, which is near 0 where the teacher is confident.

    Defaults are those of the authors' code for CIFAR-100. It chooses β by the pair of networks: 8
    by default (ResNet-32x4 to ResNet-8x4, ResNet-50 to MobileNet-V2), 6 between VGGs, between wide
    ResNets and from VGG-13 to MobileNet-V2, 2 for ResNet-56 to ResNet-20 and ResNet-110 to
    ResNet-32, and on ImageNet with τ = 1, 0.5 for ResNet-34 to ResNet-18 and 2 for ResNet-50 to
    MobileNet-V1. Its warm-up goes up once an epoch, from 1/20 in the first to 1 in the 20th of 240
    (on ImageNet there is none: set `warmup_fraction=0`); ours goes up once a step, from 0.

    With `standardize_logits` (Sun et al. 2024, https://arxiv.org/abs/2403.01427) the logits of both
    networks first get mean 0 and standard deviation 1 over the classes of each image, see `kd`. The
    authors' command then sets τ = 2 and multiplies α and β by 9, to 9 and 72; by their logs τ was 3
    for 2 of 14 pairs of networks, the factor 9 to 18, and β before it 2 for 11.

    Args:
        student: the network.
        teacher: a trained network for the same classes.
        task: what the labels mean; each image has one class.
        supervised_weight: weight ≥ 0 of the supervised loss; 1 in the code. 0 leaves it out.
        target_class_weight: weight α ≥ 0 of the first divergence, that of label against all other
            classes; 1 in the code. 0 leaves it out.
        non_target_class_weight: weight β ≥ 0 of the second divergence, that among the other
            classes; 8 in the code, see above. 0 leaves it out. Of two classes it has nothing to
            say.
        temperature: τ > 0; 4 in the code.
        warmup_fraction: fraction w of the run, in [0, 1), over which both divergences grow linearly
            to their weights.
        standardize_logits: whether to standardize the logits before they are softened; set
            temperature and weights with it, see above.
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
        non_target_class_weight: float = 8.0,
        temperature: float = 4.0,
        warmup_fraction: float = 20 / 240,
        standardize_logits: bool = False,
    ) -> None:
        super().__init__()
        if standardize_logits:
            check_standardizable(task)
        self.weights = {"target": target_class_weight, "others": non_target_class_weight}
        if not (supervised_weight or any(self.weights.values())):
            raise ConfigError(
                "dkd needs a loss: set supervised_weight, target_class_weight or "
                "non_target_class_weight above 0"
            )
        if not 0 <= warmup_fraction < 1:
            raise ConfigError(
                f"warmup_fraction={warmup_fraction:g} is no fraction of a run; give 0 … 0.99"
            )
        self.student, self.teacher, self.task = student, teacher, task
        self.supervised_weight, self.temperature = supervised_weight, temperature
        self.warmup_fraction, self.standardize_logits = warmup_fraction, standardize_logits
        self.needs = self.needs._replace(run_length=bool(warmup_fraction))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `target` and `others`, as far as they have a weight."""
        outputs = self.student(batch.inputs)
        losses = {}
        if self.supervised_weight:
            losses["task"] = self.supervised_weight * self.task.loss(outputs, batch.targets)
        pair = outputs, self.teacher.outputs(batch)
        if self.standardize_logits:
            pair = standardize_logits(pair[0]), standardize_logits(pair[1])
        warmup: Tensor | float = 1.0
        if self.warmup_fraction:
            warmup = (progress.fraction / self.warmup_fraction).clamp(max=1)
        divergences = decoupled_divergence(*pair, batch.targets, self.temperature)
        for name, divergence in divergences._asdict().items():
            if self.weights[name]:
                losses[name] = warmup * self.weights[name] * divergence
        return StepOutput(outputs, losses)


class DecoupledDivergence(NamedTuple):
    """The divergence of label against all other classes, and that among the other classes."""

    target: Tensor
    others: Tensor


def decoupled_divergence(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float
) -> DecoupledDivergence:
    """Both parts of the divergence between logits (B, K), τ² times their mean over the images."""
    pairs = zip(
        split_logits(student, labels, temperature),
        split_logits(teacher, labels, temperature),
        strict=True,
    )
    return DecoupledDivergence(*(temperature**2 * kl_divergence(s, t, 1) for s, t in pairs))


def split_logits(logits: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Softened logits of label and all others (B, 2), and of each other class (B, K - 1)."""
    softened = logits.float() / temperature
    target, others = at_label(softened, labels), without_label(softened, labels)
    return torch.stack([target, others.logsumexp(1)], dim=1), others
