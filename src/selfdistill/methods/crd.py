from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Needs,
    Progress,
    Provenance,
    StepOutput,
    Task,
)
from ..core.keyed_random import bits, purpose
from ..modules.memory import all_gather
from ..modules.memory_distillation import MemoryDistillation
from ..taps import Taps, Teacher

_POSITIVES = purpose("crd.positives")


@METHODS.add("crd")
class ContrastiveRepresentation(MemoryDistillation):
    r"""Contrast the teacher's embedding of an image with memory-bank embeddings of other images.

    Tian et al. 2020, https://arxiv.org/abs/1910.10699, Eq. 17 and 18. The pooled last features of
    student and teacher are each mapped to a unit vector, :math:`v_S` and :math:`v_T`, by a linear
    layer that is trained. A memory holds a moving average of both for every training image. With
    :math:`m_0` the row of the image itself and :math:`m_1 … m_K` those of images of other classes,

    .. math::
        h_k = \frac{u_k}{u_k + K/N + 10^{-7}}, \quad u_k = \frac{e^{m_k \cdot v / \tau}}{Z}, \quad
        L(v, m) = -\log h_0 - \sum_{k=1}^K \log(1 - h_k)

    .. math:: L = L_{task} + \beta \left[ L(v_S, m_T) + L(v_T, m_S) \right] + a L_{soft}

    that is, the student's embedding is scored with the teacher's memory and the other way round. Z
    is N times the mean of the exponentials in the first step, and constant from then on.

    All defaults are those of the authors' code, from which we differ in this: it draws negatives
    without replacement while the other classes have K images, we with replacement, on the device,
    which has the same expectation; where they have fewer than K, it falls back to replacement and
    we lower K to the number of images outside the largest class. Its 1 - h lacks the small constant
    in the numerator, which adds a number without a gradient to the loss, 0.005 per side on
    CIFAR-100. All processes share one memory and one Z.

    The memories take 2·N·D numbers, 51 MB for 50,000 images, and are kept in checkpoints. Only
    training steps update them.

    Args:
        student: a network; its last tap is embedded.
        teacher: a trained network; its last tap is embedded.
        task: what the labels mean; one class an image.
        train_labels: classes of all training images, in the order of `Batch.indices`.
        contrastive_weight: weight β > 0 of both contrastive losses.
        soft_weight: weight a ≥ 0 of the soft loss; the authors' CRD+KD has 1.
        temperature: > 0, of the soft loss.
        num_negatives: K, 1 or more; capped at the number of images outside the largest class.
        positives: the positive row of an image: its own, "instance", or that of any image of its
            "class", which is the code's mode "relax".
        contrast_temperature: τ > 0 of the contrastive losses.
        embedding_width: dimension D of the embeddings.
        memory_momentum: fraction of its old value that an updated row of the memory keeps, in
            [0, 1).
    """

    provenance = Provenance.CODE
    needs = Needs(image_labels=True, single_label=True)
    teacher_reads = "pooled"
    constants: Tensor

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        train_labels: Tensor,
        *,
        contrastive_weight: float = 0.8,
        soft_weight: float = 0.0,
        temperature: float = 4.0,
        num_negatives: int = 16384,
        positives: Literal["instance", "class"] = "instance",
        contrast_temperature: float = 0.07,
        embedding_width: int = 128,
        memory_momentum: float = 0.5,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        if not contrastive_weight:
            raise ConfigError(
                "without contrastive losses crd is method 'kd'; set contrastive_weight above 0"
            )
        self.contrastive_weight, self.positives = contrastive_weight, positives
        self.contrast_temperature = contrast_temperature
        self.embed_student = nn.Linear(list(student.shapes.values())[-1][0], embedding_width)
        self.embed_teacher = nn.Linear(list(teacher.shapes.values())[-1][0], embedding_width)
        self.add_memories(train_labels, num_negatives, embedding_width, memory_momentum)
        self.register_buffer("constants", torch.full((2,), -1.0))  # Z of both sides; below 0: unset

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `contrast` and, with a weight, `soft`."""
        outputs, losses, student_vector, teacher_vector = self.pooled_forward(batch)
        v_student = embed(self.embed_student, student_vector)  # (B, D)
        v_teacher = embed(self.embed_teacher, teacher_vector)
        rows = self._rows(batch.indices, progress)  # (B, 1 + K)
        scores = (self.memory_teacher(v_student, rows), self.memory_student(v_teacher, rows))
        samples = len(self.memory_student.rows)
        logits = torch.stack(scores) / self.contrast_temperature  # (2, B, 1 + K)
        estimates = samples * logits.detach().exp().mean((1, 2))
        constants = torch.where(self.constants > 0, self.constants, estimates)
        contrast = contrastive_losses(logits, constants, samples)
        losses["contrast"] = self.contrastive_weight * contrast.sum()
        student, teacher = contrast.detach()
        monitors = {"contrast/student": student, "contrast/teacher": teacher}
        step: StepOutput = self.record(
            self,
            StepOutput(outputs, losses, monitors),
            *(batch.indices, v_student.detach(), v_teacher.detach(), estimates[None]),
        )
        return step

    def _rows(self, index: Tensor, progress: Progress) -> Tensor:
        """Rows of the memories that each image is compared with: (B, 1 + K), the positive first."""
        positives = index[:, None]
        if self.positives == "class":
            draws = bits(_POSITIVES, progress.seed, progress.step, positives)
            positives = self.draws.same(positives, draws)
        return torch.cat([positives, self.negatives(index, progress)], 1)

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Updates the memories by the step's embeddings, and sets Z if this was the first step."""
        recorded = self.update_memories()
        if recorded:
            mean = all_gather(recorded[3]).mean(0)
            self.constants.copy_(torch.where(self.constants > 0, self.constants, mean))


def embed(layer: nn.Module, pooled: Tensor) -> Tensor:
    """A pooled feature (B, C) through a linear layer to unit length, (B, D) in fp32."""
    return F.normalize(layer(pooled).float())


def contrastive_losses(logits: Tensor, constants: Tensor, samples: int) -> Tensor:
    """L of both sides, (2,), from m·v/τ (2, B, 1 + K), the positive first, and Z (2,).

    h is the sigmoid of log u - log(K/N + 1e-7), so both logarithms are softplus, which stays exact
    where h would be rounded to 0 or 1.
    """
    noise = (logits.shape[2] - 1) / samples + 1e-7
    logits = logits - (constants * noise).log()[:, None, None]
    positive = F.softplus(-logits[..., 0])  # (2, B)
    return (positive + F.softplus(logits[..., 1:]).sum(2)).mean(1)
