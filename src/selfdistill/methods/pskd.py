import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import METHODS, Batch, ConfigError, Needs, Progress, Provenance, StepOutput, Task
from ..functional.divergence import soft_cross_entropy
from ..modules.memory import gather_updates
from ..modules.step_record import RecordingMethod


@METHODS.add("pskd")
class ProgressiveSelfDistillation(RecordingMethod):
    r"""Soften the labels, more and more, by what the network said of an image an epoch ago (PS-KD).

    Kim et al. 2021, https://arxiv.org/abs/2006.12000. With :math:`p_{t-1}` the probabilities that
    the network gave for the image when it last saw it,

    .. math:: L = (1 - \alpha) \, CE(z, y) - \alpha \sum_k p_{t-1,k} \log softmax(z)_k, \quad \alpha
        = \alpha_T f

    where f is the fraction of the run that is done: cross-entropy with a mixture of label and past
    prediction. As in the authors' code the prediction is that of the training pass itself, of the
    image as it was then cropped and flipped, before the step's update, and has no temperature; the
    code's α goes up once an epoch, from :math:`\alpha_T / T` in the first of T to
    :math:`\alpha_T` in the last, ours once a step, from 0.

    A memory holds the last prediction for each training image, at first its label, so that the
    first epoch is plain training. It takes N·K numbers, 20 MB for CIFAR-100 and 5.1 GB for
    ImageNet, on the device and in every checkpoint, from which a run resumes exactly. Only training
    steps write to it. A network of the last epoch's end (`snapshot` keeps one of a cycle's end)
    would take less memory and another pass, and see the image as it is cropped now: another method.

    A step costs no pass more than plain training. The length of the run must be known.

    Args:
        student: the network.
        task: what the labels mean; each image has one class.
        train_labels: classes of all training images, in the order of `Batch.indices`.
        soft_weight: weight :math:`\alpha_T` of the past predictions at the end of the run, in [0,
            1]; the authors' 0.8. The labels have the rest.
    """

    kind = "self"
    provenance = Provenance.CODE
    needs = Needs(image_labels=True, single_label=True, images=False, run_length=True)
    memory_buffers = ("predictions",)
    predictions: Tensor

    def __init__(
        self, student: nn.Module, task: Task, train_labels: Tensor, *, soft_weight: float = 0.8
    ) -> None:
        super().__init__()
        if not 0 <= soft_weight <= 1:
            raise ConfigError(f"soft_weight={soft_weight:g} is no share of the target; give 0 … 1")
        self.student, self.task, self.soft_weight = student, task, soft_weight
        labels = F.one_hot(train_labels, len(task.classes)).float()  # (N, K)
        self.register_buffer("predictions", labels)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft`, and the growing weight of the latter as `soft_weight`."""
        outputs = self.student(batch.inputs)
        share = self.soft_weight * progress.fraction
        soft = soft_cross_entropy(outputs, self.predictions[batch.indices])
        losses = {
            "task": (1 - share) * self.task.loss(outputs, batch.targets),
            "soft": share * soft,
        }
        step = StepOutput(outputs, losses, {"soft_weight": share})
        recorded: StepOutput = self.record(
            self, step, batch.indices, outputs.detach().float().softmax(1)
        )
        return recorded

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Writes the step's predictions into the memory."""
        recorded = self.recorded()
        if recorded:
            self.predictions.index_copy_(0, *gather_updates(*recorded))
