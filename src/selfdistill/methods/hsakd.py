import torch

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
from ..modules.rotations import TURNS, JointHeads, check_turnable, turned
from ..taps import Taps


@METHODS.add("hsakd")
class JointLabelDistillation(Method):
    r"""Match a teacher's joint distributions of class and turn behind every stage.

    HSAKD, Yang et al. 2021, https://arxiv.org/abs/2107.13715, from a teacher whose heads
    `hsakd-teacher` trained. Every image is turned by 0°, 90°, 180° and 270°; the student has heads
    like the teacher's behind its own stages, each matched with the teacher's of the same number:

    .. math::
        L = L_{task}(z^s(x)) + \frac{a}{4} \sum_k \sum_l KL_\tau(q_l^t(x_k) \| q_l^s(x_k))
            + \frac{b}{4} \sum_k KL_\tau(z^t(x_k) \| z^s(x_k))

    with x_k the image turned k times and the square of τ in each divergence. As in the paper the
    student's heads see no joint labels, and labels train the output of the plain image alone.

    Args:
        student: a network that can be cut at all of its taps, of which it has as many as the
            teacher.
        teacher: trained by `hsakd-teacher`.
        task: what the labels mean; one class an image.
        joint_weight: weight a ≥ 0 of the heads' terms; the paper's 1. 0 leaves them and the heads
            out.
        soft_weight: weight b ≥ 0 of the soft loss of the outputs; the paper's 1.
        temperature: τ > 0; the paper's 3.
    """

    kind = "offline"
    provenance = Provenance.CODE
    needs = Needs(image_labels=True, teacher_scores=True)
    teacher_method = "hsakd-teacher"
    default_taps = "stages"

    def __init__(
        self,
        student: Taps,
        teacher: Frozen,
        task: Task,
        *,
        joint_weight: float = 1.0,
        soft_weight: float = 1.0,
        temperature: float = 3.0,
    ) -> None:
        super().__init__()
        check_turnable(task)
        self.student, self.teacher, self.task = student, teacher, task
        self.joint_weight, self.soft_weight = joint_weight, soft_weight
        self.temperature = temperature
        self.heads = JointHeads(student, task) if joint_weight else None
        heads = getattr(teacher.network, "heads", None)  # a finished run has no use for them
        if self.heads and heads and len(heads.heads) != len(self.heads.heads):
            raise ConfigError(
                f"the teacher has heads behind {len(heads.heads)} taps and the student has "
                f"{len(self.heads.heads)} taps; name as many with --taps"
            )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft`, and `joint/l` of each stage."""
        inputs = turned([batch.inputs] * TURNS)
        outputs, features = self.student.forward_features(inputs, raw=True)
        with torch.no_grad():
            teacher_outputs, targets = self.teacher.network.knowledge(inputs)  # type: ignore[operator]
        plain = outputs[: len(batch.inputs)]
        losses = {"task": self.task.loss(plain, batch.targets)}
        if self.soft_weight:
            soft = kl_divergence(outputs, teacher_outputs, self.temperature)
            losses["soft"] = self.soft_weight * soft
        if self.heads:
            joint_outputs = self.heads(list(features.values()))
            for i, (q, target) in enumerate(zip(joint_outputs, targets, strict=True), 1):
                divergence = kl_divergence(q, target, self.temperature)
                losses[f"joint/{i}"] = self.joint_weight * divergence
        return StepOutput(plain, losses)
