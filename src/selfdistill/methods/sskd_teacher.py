import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import METHODS, Batch, Needs, Progress, Provenance, StepOutput, Task
from ..modules.rotations import TURNS, check_turnable, turned
from ..modules.teacher_training import Backbone, TeacherTraining
from ..modules.view_similarity import ViewSimilarity
from ..taps import Taps


@METHODS.add("sskd-teacher")
class SelfSupervisedTeacher(TeacherTraining):
    r"""Train the self-supervision head of an SSKD teacher: find the plain image of a turned one.

    Xu et al. 2020, https://arxiv.org/abs/2006.07114, the stage before its students train. Every
    image is seen four times, turned by 0°, 90°, 180° and 270°, each time with a crop of its own.
    Pooled features pass a head of two linear layers, and with A the cosines of the 3B turned images
    with the B plain ones,

    .. math:: L = \frac{1}{3B} \sum_i -\log softmax(A_i)_{plain(i)}

    where plain(i) is the image that row i was turned from. As in the authors' code no temperature
    divides A, and the network, which is trained on labels before, stays as it is. That code trains
    the head for 60 epochs at a rate of 0.05, divided by ten after 30 and 45. Its images are
    mirrored once for all four views; here each view is mirrored by itself.

    Args:
        student: the network that is to teach.
        task: what the labels mean; one class an image.
        backbone: "frozen", a trained network (`--weights`) of which nothing changes, the paper's;
            or "joint", one that learns labels at the same time, which is ours.
    """

    provenance = Provenance.CODE
    needs = Needs(views=TURNS, batch=2, image_labels=True, trained_student=True)

    def __init__(self, student: Taps, task: Task, *, backbone: Backbone = "frozen") -> None:
        super().__init__(student, task, backbone)
        check_turnable(task)
        self.similarity = ViewSimilarity(list(student.shapes.values())[-1][0])
        self.freeze_backbone()

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`contrast`, and `task` if the network learns, too."""
        outputs, similarities = self.knowledge(turned((batch.inputs, *batch.views)))
        own = torch.arange(len(batch.inputs), device=similarities.device).repeat(TURNS - 1)
        plain = outputs[: len(batch.inputs)]
        losses = {"contrast": F.cross_entropy(similarities, own)}
        if self.backbone == "joint":
            losses["task"] = self.task.loss(plain, batch.targets)
        right = (similarities.detach().argmax(1) == own).float().mean()
        return StepOutput(plain, losses, {"matched": right})

    def knowledge(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What a student learns from: outputs (4B, K) and similarities (3B, B) of turned images."""
        outputs, _, pooled = self.student.forward_pooled(inputs)
        return outputs, self.similarity(pooled)
