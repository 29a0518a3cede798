from typing import NamedTuple

import torch.nn.functional as F
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
from ..functional.divergence import finite, mask_weights, weighted_mean
from ..functional.places import resize_scores


class Setting(NamedTuple):
    """Weight of the soft loss and temperature of one form of the method."""

    soft_weight: float
    temperature: float


SETTINGS = {False: Setting(45.0, 10.0), True: Setting(4.0, 5.0)}
"""Of TTM, and of WTTM, which weights samples."""


@METHODS.add("ttm")
class TransformedTeacherMatching(Method):
    r"""Match the teacher's softened distribution by the student's own, not softened (TTM, WTTM).

    Zheng and Yang 2024, https://arxiv.org/abs/2402.11148. Only the teacher has a temperature, which
    is a power transform of its probabilities p with the exponent :math:`\gamma = 1 / \tau`:

    .. math:: p^{(\gamma)}_k = \frac{p_k^\gamma}{U_\gamma}, \quad U_\gamma = \sum_k p_k^\gamma
        \qquad L = L_{task} + \beta \, \overline{w \, KL\left(p^{(\gamma)} \,\|\, softmax(z_s)
        \right)}

    In TTM w = 1. In WTTM, `weighted`, it is :math:`U_\gamma`, large where the teacher's own
    distribution is flat. There is no factor τ², since the student's gradient has no 1/τ.

    :math:`U_\gamma` lies between 1 and :math:`K^{1 - \gamma}`, 63 for 100 classes and τ = 10, so
    the two forms want weights that far apart. Defaults are those of the authors' commands for
    VGG-13 to VGG-8 on CIFAR-100, of which that for WTTM is the one beside CRD (`crd+ttm`): the
    values for WTTM alone and for other networks are in the paper's supplement, which could not be
    read. As in their code the divergence is summed over the classes and averaged over the images.
    `snapshot` has the same softening of one side, with the network's own past as the teacher.

    Args:
        student: the network.
        teacher: a trained network for the same classes.
        task: what the labels mean.
        supervised_weight: weight ≥ 0 of the supervised loss; the authors' 1. 0 leaves it out.
        soft_weight: weight β ≥ 0 of the divergence; none takes the authors' 45, or weighted 4. 0
            leaves it out.
        temperature: τ > 0 of the teacher; none takes the authors' 10, or weighted 5.
        weighted: whether each sample is weighted by :math:`U_\gamma`, which makes it WTTM.
    """

    kind = "offline"
    provenance = Provenance.CODE
    needs = Needs(class_scores=True, teacher_scores=True, images=False)
    teacher_reads = "outputs"

    def __init__(
        self,
        student: nn.Module,
        teacher: Frozen,
        task: Task,
        *,
        supervised_weight: float = 1.0,
        soft_weight: float | None = None,
        temperature: float | None = None,
        weighted: bool = False,
    ) -> None:
        super().__init__()
        setting = SETTINGS[weighted]
        self.soft_weight = setting.soft_weight if soft_weight is None else soft_weight
        self.temperature = setting.temperature if temperature is None else temperature
        if not (supervised_weight or self.soft_weight):
            raise ConfigError("ttm needs a loss: set supervised_weight or soft_weight above 0")
        if self.temperature <= 0:
            raise ConfigError(f"temperature={self.temperature:g} must be above 0; the code has 10")
        self.student, self.teacher, self.task = student, teacher, task
        self.supervised_weight, self.weighted = supervised_weight, weighted

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft`, as far as they have a weight."""
        outputs = self.student(batch.inputs)
        losses = {}
        if self.supervised_weight:
            losses["task"] = self.supervised_weight * self.task.loss(outputs, batch.targets)
        if self.soft_weight:
            reference = self.teacher.outputs(batch)
            size = reference.shape[2:]
            divergences = transformed_divergences(
                resize_scores(outputs, size), reference, self.temperature, weighted=self.weighted
            )
            mask = mask_weights(self.task.valid_mask(batch.targets), size)
            losses["soft"] = self.soft_weight * weighted_mean(divergences, mask)
        return StepOutput(outputs, losses)


def transformed_divergences(
    student: Tensor, teacher: Tensor, temperature: float, *, weighted: bool
) -> Tensor:
    """w KL of each sample and position, (B, ...), between logits (B, K, ...), in fp32."""
    powers = teacher.float().log_softmax(1) / temperature  # γ log p
    log_student, log_teacher = student.float().log_softmax(1), finite(powers.log_softmax(1))
    divergences = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)
    return divergences * powers.logsumexp(1).exp() if weighted else divergences
