from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Method,
    Needs,
    Progress,
    Provenance,
    StepOutput,
    Task,
)
from ..core.keyed_random import bits, purpose
from ..modules.memory import MemoryBank, gathered
from ..taps import Taps, Teacher

_NEGATIVES, _POSITIVES = purpose("crd.negatives"), purpose("crd.positives")


@METHODS.add("crd")
class ContrastiveRepresentation(Method):
    r"""Tell an image's own teacher embedding from those of images of other classes.

    Tian et al. 2020, https://arxiv.org/abs/1910.10699, Eq. 17 and 18. The pooled last features of
    student and teacher are each mapped to a unit vector, :math:`v_S` and :math:`v_T`, by a linear
    layer that is trained. A memory holds a moving average of both for every training image. With
    :math:`m_0` the row of the image itself and :math:`m_1 … m_K` those of images of other classes,

    .. math::
        h_k = \frac{u_k}{u_k + K/N + 10^{-7}}, \quad u_k = \frac{e^{m_k \cdot v / \tau}}{Z}, \quad
        L(v, m) = -\log h_0 - \sum_{k=1}^K \log(1 - h_k)

    .. math:: L = L_{task} + \beta \left[ L(v_S, m_T) + L(v_T, m_S) \right] + a L_{soft}

    that is, the student's embedding is held against the teacher's memory and the other way round. Z
    is N times the mean of the exponentials in the first step, and stays.

    All defaults are those of the authors' code, from which we differ in this: it draws negatives
    without replacement while the other classes have K images, we with replacement, on the device,
    which has the same expectation; where they have fewer than K, it falls back to replacement and
    we lower K to their number (beside the largest class). Its 1 - h lacks the small constant in the
    numerator, which adds a number without a gradient to the loss, 0.005 per side on CIFAR-100. All
    processes share one memory and one Z.

    The memories take 2·N·D numbers, 51 MB for 50,000 images, and are kept in checkpoints. Only
    training steps are remembered.

    Args:
        student: the last of its taps is what learns.
        teacher: a trained network, of which the last tap is read.
        task: what the labels mean; one class an image.
        train_labels: classes of all training images, in the order of `Batch.indices`.
        contrast: weight β > 0 of both contrastive losses.
        soft: weight a of the soft loss; the authors' CRD+KD has 1.
        soft_temperature: of the soft loss.
        negatives: K, 1 or more; capped at the number of images outside the largest class.
        positives: an image's own row, "instance", or that of any image of its "class", which is
            the code's mode "relax".
        temperature: τ > 0 of the contrast.
        width: D, of the embeddings.
        bank_momentum: share of its old value that a row of the memory keeps, in [0, 1).
    """

    kind = "offline"
    provenance = Provenance.CODE
    needs = Needs(image_labels=True)
    constants: Tensor

    def __init__(
        self,
        student: Taps,
        teacher: Taps,
        task: Task,
        train_labels: Tensor,
        *,
        contrast: float = 0.8,
        soft: float = 0.0,
        soft_temperature: float = 4.0,
        negatives: int = 16384,
        positives: Literal["instance", "class"] = "instance",
        temperature: float = 0.07,
        width: int = 128,
        bank_momentum: float = 0.5,
    ) -> None:
        super().__init__()
        if not contrast:
            raise ConfigError("without its contrast this is method 'kd'; give contrast a weight")
        if negatives < 1:
            raise ConfigError(f"a contrast needs 1 negative or more, not {negatives}")
        self.student, self.teacher, self.task = student, Teacher(teacher), task
        self.contrast, self.temperature, self.positives = contrast, temperature, positives
        self.soft, self.soft_temperature = soft, soft_temperature
        self.draws = ClassDraws(train_labels)
        self.negatives = min(negatives, self.draws.fewest_others)
        self.embed_student = nn.Linear(list(student.shapes.values())[-1][0], width)
        self.embed_teacher = nn.Linear(list(teacher.shapes.values())[-1][0], width)
        self.memory_student = MemoryBank(len(train_labels), width, bank_momentum)
        self.memory_teacher = MemoryBank(len(train_labels), width, bank_momentum)
        self.register_buffer("constants", torch.full((2,), -1.0))  # Z of both sides; below 0: unset
        self.seen: list[tuple[Tensor, ...]] = []  # by the passes since the last optimizer step

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `contrast` and, with a weight, `soft`."""
        out, features = self.student.forward_features(batch.inputs)
        reference, theirs = self.teacher.forward_features(batch.inputs)  # without a gradient
        losses = {"task": self.task.loss(out, batch.targets)}
        if self.soft:
            distance = self.task.soft_loss(out, reference, self.soft_temperature)
            losses["soft"] = self.soft * distance
        mine = unit_vector(self.embed_student, features)  # (B, D)
        its = unit_vector(self.embed_teacher, theirs)
        rows = self._rows(batch.indices, progress)  # (B, 1 + K)
        scores = (self.memory_teacher(mine, rows), self.memory_student(its, rows))
        samples = len(self.memory_student.rows)
        powers = torch.stack(scores) / self.temperature  # (2, B, 1 + K)
        found = samples * powers.detach().exp().mean((1, 2))
        constants = torch.where(self.constants > 0, self.constants, found)
        sides = noise_contrast(powers, constants, samples)
        losses["contrast"] = self.contrast * sides.sum()
        student, teacher = sides.detach()
        step = StepOutput(out, losses, {"contrast/student": student, "contrast/teacher": teacher})
        remembered: StepOutput = self._remember(
            step, batch.indices, mine.detach(), its.detach(), found[None]
        )
        return remembered

    def _rows(self, index: Tensor, progress: Progress) -> Tensor:
        """What each image is compared with: (B, 1 + K), the positive first."""
        own = index[:, None]
        if self.positives == "class":
            own = self.draws.same(index, bits(_POSITIVES, progress.seed, progress.step, own))
        slots = torch.arange(self.negatives, device=index.device)
        numbers = bits(_NEGATIVES, progress.seed, progress.step, index[:, None], slots)
        return torch.cat([own, self.draws.other(index, numbers)], 1)

    # Compiled, the list's length would be part of the code, and it grows with each pass.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _remember(self, step: StepOutput, *seen: Tensor) -> StepOutput:
        if self.training:
            self.seen.append(seen)
        return step

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Updates the memories by what the step's passes saw, and sets Z if this was the first."""
        if not self.seen:
            return
        index, mine, its, found = (torch.cat(parts) for parts in zip(*self.seen, strict=True))
        self.seen.clear()
        self.memory_student.update(index, mine)
        self.memory_teacher.update(index, its)
        mean = gathered(found).mean(0)
        self.constants.copy_(torch.where(self.constants > 0, self.constants, mean))

    def predictors(self) -> dict[str, nn.Module]:
        """The student alone."""
        return {"student": self.student.network}


def unit_vector(layer: nn.Module, features: dict[str, Tensor]) -> Tensor:
    """The last of {tap: (B, C, H, W)}, pooled and mapped to unit length, (B, D) in fp32."""
    *_, last = features.values()
    return F.normalize(layer(last.mean((2, 3))).float())


def noise_contrast(powers: Tensor, constants: Tensor, samples: int) -> Tensor:
    """The loss of both sides, (2,), from m·v/τ (2, B, 1 + K), the positive first, and Z (2,).

    h is the sigmoid of log u - log(K/N + 1e-7), so both logarithms are softplus: none of them meets
    a number that has been rounded to 1.
    """
    noise = (powers.shape[2] - 1) / samples + 1e-7
    logits = powers - (constants * noise).log()[:, None, None]
    missed = F.softplus(-logits[..., 0])  # (2, B)
    return (missed + F.softplus(logits[..., 1:]).sum(2)).mean(1)


class ClassDraws(nn.Module):
    """Uniform draws among the training images of an image's own class, or of all others.

    The images are sorted by class once. A draw among the others is a place in that order with the
    own class's block skipped: exact, and without a second try.

    Args:
        labels: class of each training image, (N,), any integers.

    Attributes:
        fewest_others: images outside the largest class.

    Raises:
        ConfigError: all images are of one class.
    """

    classes: Tensor
    order: Tensor
    start: Tensor
    count: Tensor

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        _, classes, count = labels.unique(return_inverse=True, return_counts=True)
        if len(count) < 2:
            raise ConfigError("a contrast needs training images of two classes or more")
        self.fewest_others = len(labels) - int(count.max())
        known = {
            "classes": classes,
            "order": classes.argsort(stable=True),
            "start": count.cumsum(0) - count,
            "count": count,
        }
        for name, tensor in known.items():
            self.register_buffer(name, tensor, persistent=False)  # the data set tells them anew

    def same(self, index: Tensor, numbers: Tensor) -> Tensor:
        """Random bits (B, M) -> images (B, M) of the classes of the images `index` (B,)."""
        start, count = self._blocks(index)
        return self.order[start + numbers % count]

    def other(self, index: Tensor, numbers: Tensor) -> Tensor:
        """Random bits (B, M) -> images (B, M) of any classes but those of `index` (B,)."""
        start, count = self._blocks(index)
        place = numbers % (len(self.order) - count)
        return self.order[place + count * (place >= start)]

    def _blocks(self, index: Tensor) -> tuple[Tensor, Tensor]:
        own = self.classes[index][:, None]  # (B, 1)
        return self.start[own], self.count[own]
