"""What the methods share whose student learns from the features of a frozen teacher."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..core import Batch, Method, Task
from ..taps import Taps, Teacher

Features = dict[str, Tensor]

UNREACHABLE = "unreachable"
"""Monitor of the share of a teacher's feature that a module which ends in a ReLU cannot give."""

_NEGLIGIBLE = 0.01


class FeatureDistillation(Method):
    """A student and a frozen teacher, both with taps, and the loss terms of the student's output.

    Args:
        student: a network with taps.
        teacher: a frozen network with taps.
        task: what the labels mean.
        soft_weight: weight of the soft loss towards the teacher's output; 0 leaves it out.
        temperature: of the soft loss.
    """

    kind = "offline"

    def __init__(
        self, student: Taps, teacher: Teacher, task: Task, soft_weight: float, temperature: float
    ) -> None:
        super().__init__()
        self.student, self.teacher, self.task = student, teacher, task
        self.soft_weight, self.temperature = soft_weight, temperature
        self.needs = self.needs._replace(teacher_scores=bool(soft_weight))

    def paired_forward(self, batch: Batch) -> tuple[Any, dict[str, Tensor], Features, Features]:
        """One pass of both networks.

        Returns:
            The student's output; the terms `task` and, if it has a weight, `soft`; {tap: feature
            (B, C, H, W)} of the student and of the teacher, the latter without a gradient.
        """
        outputs, student_features = self.student.forward_features(batch.inputs)
        teacher_outputs, teacher_features = self.teacher.forward_features(batch.inputs)
        losses = self._output_losses(outputs, teacher_outputs, batch)
        return outputs, losses, student_features, teacher_features

    def pooled_forward(self, batch: Batch) -> tuple[Any, dict[str, Tensor], Tensor, Tensor]:
        """As `paired_forward`, with the pooled last features (B, C) in place of the features."""
        outputs, _, student_vector = self.student.forward_pooled(batch.inputs)
        teacher_outputs, teacher_vector = self.teacher.pooled(batch)
        losses = self._output_losses(outputs, teacher_outputs, batch)
        return outputs, losses, student_vector, teacher_vector

    def _output_losses(self, outputs: Any, teacher_outputs: Any, batch: Batch) -> dict[str, Tensor]:
        losses = {"task": self.task.loss(outputs, batch.targets)}
        if self.soft_weight:
            mask = self.task.valid_mask(batch.targets)
            soft = self.task.soft_loss(outputs, teacher_outputs, self.temperature, mask=mask)
            losses["soft"] = self.soft_weight * soft
        return losses


def unreachable_warning(monitors: Mapping[str, float], tap: str, part: str) -> dict[str, str]:
    """{monitor: warning} of a teacher's feature that is negative where a part ends in a ReLU.

    Args:
        monitors: means over an epoch, among them the share of the negative values.
        tap: where the teacher's feature is read.
        part: of the method; the option PART_relu takes its ReLU away.
    """
    share = monitors.get(UNREACHABLE, 0.0)
    if share <= _NEGLIGIBLE:
        return {}
    return {
        UNREACHABLE: f"negative values are {share:.0%} of the teacher's feature at {tap}, and the "
        f"{part} ends in a ReLU; set {part}_relu=false"
    }
