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
from ..functional.divergence import kl_divergence


@METHODS.add("dkd")
class DecoupledDistillation(Method):
    r"""Learn apart how sure a frozen teacher is of the label and what it thinks of the others.

    Zhao et al. 2022, https://arxiv.org/abs/2203.08679, Eq. 7. With :math:`b = (p_y, 1 - p_y)` and
    :math:`\hat p` the softmax over all classes but the label y, both at temperature τ,

    .. math:: L = L_{task} + \min(1, f / w) \, \tau^2 \left[ \alpha \, KL(b^t \,\|\, b^s) + \beta \,
        KL(\hat p^t \,\|\, \hat p^s) \right]

    where f is the part of the run that is done. Plain distillation is the same with α = 1 and, for
    each image, :math:`\beta = 1 - p_y^t`: it hardly listens where the teacher is sure.

    Defaults are those of the authors' code for CIFAR-100. It chooses β by the pair of networks: 8
    by default (ResNet-32x4 to ResNet-8x4, ResNet-50 to MobileNet-V2), 6 between VGGs and between
    wide ResNets, 2 for ResNet-56 to ResNet-20 and ResNet-110 to ResNet-32, and on ImageNet 0.5 with
    τ = 1. Its warm-up goes up once an epoch for 20 of 240 (1 of 100 on ImageNet), ours once a step.

    Args:
        student: the network.
        teacher: a trained network for the same classes.
        task: what the labels mean; each image has one class.
        supervised: weight of the supervised loss; 1 in the code. 0 leaves it out.
        target: weight α of the label's part; 1 in the code. 0 leaves it out.
        others: weight β of the other classes' part; 8 in the code, see above. 0 leaves it out.
        temperature: τ > 0; 4 in the code.
        ramp: part w of the run, in [0, 1), over which the two terms grow to their weights. Above
            0 the length of the run must be known.
    """

    kind = "offline"
    provenance = Provenance.CODE
    needs = Needs(image_labels=True)

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        task: Task,
        *,
        supervised: float = 1.0,
        target: float = 1.0,
        others: float = 8.0,
        temperature: float = 4.0,
        ramp: float = 20 / 240,
    ) -> None:
        super().__init__()
        if not (supervised or target or others):
            raise ConfigError("dkd needs a loss: give supervised, target or others a weight")
        if not 0 <= ramp < 1:
            raise ConfigError(f"ramp={ramp:g} is no part of a run; give 0 … 0.99")
        self.student, self.teacher, self.task = student, Frozen(teacher), task
        self.supervised, self.temperature, self.ramp = supervised, temperature, ramp
        self.weights = {"target": target, "others": others}

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `target` and `others`."""
        out = self.student(batch.inputs)
        losses = {}
        if self.supervised:
            losses["task"] = self.supervised * self.task.loss(out, batch.targets)
        with torch.no_grad():
            reference = self.teacher(batch.inputs)
        ramp = (progress.fraction / self.ramp).clamp(max=1) if self.ramp else 1.0
        parts = decoupled(out, reference, batch.targets, self.temperature)
        for name, value in parts._asdict().items():
            if self.weights[name]:
                losses[name] = ramp * self.weights[name] * value
        return StepOutput(out, losses)

    def predictors(self) -> dict[str, nn.Module]:
        """The student alone."""
        return {"student": self.student}


class Parts(NamedTuple):
    """The divergence of label against rest, and that among the other classes."""

    target: Tensor
    others: Tensor


def decoupled(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Parts:
    """Both parts of the divergence between logits (B, K), τ² times their mean over the images."""
    own, other = split(student, labels, temperature), split(teacher, labels, temperature)
    return Parts(
        *(temperature**2 * kl_divergence(s, t, 1) for s, t in zip(own, other, strict=True))
    )


def split(logits: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Softened logits of label and rest (B, 2), and of the classes but the label (B, K - 1)."""
    soft = logits.float() / temperature
    places = torch.arange(soft.shape[1] - 1, device=soft.device).expand(len(soft), -1)
    rest = soft.gather(1, places + (places >= labels[:, None]))
    whole = torch.stack([soft.gather(1, labels[:, None])[:, 0], rest.logsumexp(1)], dim=1)
    return whole, rest
