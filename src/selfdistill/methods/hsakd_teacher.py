import torch.nn.functional as F
from torch import Tensor

from ..core import METHODS, Batch, Progress, Provenance, StepOutput, Task
from ..modules.rotations import TURNS, JointHeads, check_turnable, joint_labels, turned
from ..modules.teacher_training import Backbone, TeacherTraining
from ..taps import Taps


@METHODS.add("hsakd-teacher")
class JointLabelTeacher(TeacherTraining):
    r"""Train heads behind every stage of an HSAKD teacher that tell class and turn of an image.

    Yang et al. 2021, https://arxiv.org/abs/2107.13715, the teacher's training. Every image is
    turned by 0°, 90°, 180° and 270°, and head l tells 4K classes, class and turn together:

    .. math:: L = L_{task}(z(x)) + \frac{1}{4} \sum_{k} \sum_l CE(q_l(x_k), 4 y + k)

    with x_k the image turned k times; labels alone train the output of the plain image. The
    authors train network and heads together, or the heads alone on a trained network (100 epochs,
    the rate divided by ten after 30, 60 and 90); the first gives them better teachers and students.

    Args:
        student: the network that is to teach; it can be cut at all of its taps.
        task: what the labels mean; one class an image.
        backbone: "joint", or "frozen", a trained network (`--weights`) of which nothing changes and
            whose own term is left out.
    """

    provenance = Provenance.CODE
    default_taps = "stages"

    def __init__(self, student: Taps, task: Task, *, backbone: Backbone = "joint") -> None:
        super().__init__(student, task, backbone)
        check_turnable(task)
        self.heads = JointHeads(student, task)
        self.freeze_backbone()

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`joint/l` of each stage, and `task` if the network learns, too."""
        outputs, joint_outputs = self.knowledge(turned([batch.inputs] * TURNS))
        plain, labels = outputs[: len(batch.inputs)], joint_labels(batch.targets)
        losses = {
            f"joint/{i}": F.cross_entropy(q.float(), labels) for i, q in enumerate(joint_outputs, 1)
        }
        if self.backbone == "joint":
            losses["task"] = self.task.loss(plain, batch.targets)
        return StepOutput(plain, losses)

    def knowledge(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What a student learns from: outputs (4B, K), and (4B, 4K) of the head behind each tap."""
        outputs, features = self.student.forward_features(inputs, raw=True)
        return outputs, self.heads(list(features.values()))
