"""What methods share that train a teacher: heads on a network that learns along, or stays."""

from typing import Literal, Self

from ..core import Method, Needs, Task
from ..taps import Taps

Backbone = Literal["frozen", "joint"]


class TeacherTraining(Method):
    """Heads that a later student learns from, trained on a network.

    Args:
        student: the network, which is to be the teacher.
        task: what the labels mean.
        backbone: "frozen", a trained network that stays as it is, batch statistics included; or
            "joint", one that learns with its heads.
    """

    kind = "self"
    needs = Needs(image_labels=True, single_label=True)

    def __init__(self, student: Taps, task: Task, backbone: Backbone) -> None:
        super().__init__()
        self.student, self.task, self.backbone = student, task, backbone
        self.needs = self.needs._replace(trained_student=backbone == "frozen")

    def freeze_backbone(self) -> None:
        """Freeze the network, if it is to be; called once the heads, maybe copies of it, are made.

        What is copied from a frozen network would stay frozen.
        """
        if self.backbone == "frozen":
            self.student.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Training mode, for the heads alone where the network is frozen."""
        super().train(mode)
        if self.backbone == "frozen":
            self.student.eval()
        return self
