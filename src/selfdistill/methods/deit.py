from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Frozen,
    Method,
    Needs,
    NetworkWrapper,
    Progress,
    Provenance,
    StepOutput,
    Task,
)
from ..functional.divergence import kl_divergence
from ..taps import Taps

_HEADS = ("head", "head_dist")


@METHODS.add("deit")
class DistillationToken(Method):
    r"""Teach a transformer by a distillation token, which learns from a teacher's labels or scores.

    DeiT, Touvron et al. 2021, https://arxiv.org/abs/2012.12877. A token beside the class token
    passes all layers, and a head of its own, with logits :math:`z_d`, learns from the teacher,
    while the class token's head, with logits z, learns from the labels:

    .. math:: L = (1 - \alpha) L_{task}(z) + \alpha L_{distill}(z_d)

    .. math:: L_{distill} = CE(z_d, \operatorname{argmax} z_t) \quad \text{(hard)}, \qquad
        \tau^2 KL\left(softmax(z_t / \tau) \,\|\, softmax(z_d / \tau)\right) \quad \text{(soft)}

    The student is timm's own distilled form of a network, `timm/deit_*_distilled_*`, with names and
    weights as they are published, and what is deployed is that network, no more: outside of this
    method its output is the mean of both heads' logits. The paper adds their probabilities; its
    code takes the mean of the logits, and so does timm. LeViT has the two heads, too, on one pooled
    feature, and serves as well.

    The code's soft loss is also averaged over the classes, which divides it by their number; ours
    is summed over them, as the paper writes it.

    Args:
        student: a transformer with a distillation token: a `timm/` network with `distilled` in its
            name, or a LeViT.
        teacher: a trained network for the same classes; in the paper a convolutional one is best.
        task: what the labels mean; each image has one class.
        distillation: what is learned from the teacher, "hard", its label, or "soft", its
            distribution; the paper prefers the first.
        distillation_weight: weight α of that loss, in [0, 1]; 0.5 in the paper for hard labels, and
            0.1 for soft ones.
        temperature: τ > 0 of the soft loss; 3 in the paper.
    """

    kind = "offline"
    provenance = Provenance.CODE
    needs = Needs(image_labels=True, teacher_scores=True, distillation_token=True)
    teacher_reads = "outputs"

    def __init__(
        self,
        student: nn.Module,
        teacher: Frozen,
        task: Task,
        *,
        distillation: Literal["hard", "soft"] = "hard",
        distillation_weight: float = 0.5,
        temperature: float = 3.0,
    ) -> None:
        super().__init__()
        if not 0 <= distillation_weight <= 1:
            raise ConfigError(
                f"distillation_weight={distillation_weight:g} is no share of the loss; give 0 … 1"
            )
        network = student.network if isinstance(student, NetworkWrapper) else student
        if not all(isinstance(getattr(network, name, None), nn.Module) for name in _HEADS):
            raise ConfigError(
                f"{type(network).__name__} has no distillation token with a head of its own; take "
                "timm/deit_tiny_distilled_patch16_224 or another of `selfdistill models distilled`"
            )
        self.student = Taps(network, _HEADS, example=task.example)
        self.teacher, self.task = teacher, task
        self.distillation, self.distillation_weight = distillation, distillation_weight
        self.temperature = temperature

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` of the class token's head and `distillation` of the other one."""
        _, logits = self.student.forward_features(batch.inputs, raw=True)
        outputs, distilled = (logits[name] for name in _HEADS)
        reference = self.teacher.outputs(batch)
        share = self.distillation_weight
        losses = {
            "task": (1 - share) * self.task.loss(outputs, batch.targets),
            "distillation": share * self._distillation_loss(distilled, reference),
        }
        return StepOutput((outputs + distilled) / 2, losses)

    def _distillation_loss(self, logits: Tensor, reference: Tensor) -> Tensor:
        if self.distillation == "hard":
            return F.cross_entropy(logits.float(), reference.argmax(1))
        return kl_divergence(logits, reference, self.temperature)
