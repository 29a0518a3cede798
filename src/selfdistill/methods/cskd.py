import torch
from torch import nn

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


@METHODS.add("cskd")
class ClassWiseSelfDistillation(Method):
    r"""Match the class distributions of two images of the same class (class-wise regularization).

    Yun et al. 2020, https://arxiv.org/abs/2003.13964, Eq. 2; the rows "CS-KD" of MUSE's Table 2:

    .. math:: L = CE(z(x), y) + \lambda \, \tau^2 \, KL\left(softmax(sg\, z(x') / \tau) \,\|\,
        softmax(z(x) / \tau)\right)

    where x' is a uniformly random training image of x's class, augmented independently. It serves
    as the target alone: no gradient flows through it, and it has no supervised loss.

    As in the authors' code x' makes a second pass in training mode, so batch norm normalizes it by
    its own statistics, and the running ones move twice a step. The defaults are theirs for
    CIFAR-100 and TinyImageNet. A step costs one forward pass more than plain training, and an epoch
    has as many steps.

    Args:
        student: the network.
        task: what the labels mean.
        soft_weight: weight λ ≥ 0 of the soft loss; the authors' 1, for fine-grained classes their
            3.
        temperature: τ > 0 of the soft loss; the authors' 4.
    """

    kind = "self"
    provenance = Provenance.CODE
    needs = Needs(same_class=True, image_labels=True, single_label=True)

    def __init__(
        self, student: nn.Module, task: Task, *, soft_weight: float = 1.0, temperature: float = 4.0
    ) -> None:
        super().__init__()
        self.student, self.task = student, task
        self.soft_weight, self.temperature = soft_weight, temperature

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft`, the divergence from the output for the image of the same class."""
        if batch.same_class_inputs is None:
            raise ConfigError(
                "cskd needs for each image another one of its class: "
                "fill Batch.same_class_inputs, as Loader(same_class=True) does"
            )
        outputs = self.student(batch.inputs)
        with torch.no_grad():
            reference = self.student(batch.same_class_inputs)
        task = self.task.loss(outputs, batch.targets)
        soft = self.task.soft_loss(outputs, reference, self.temperature)
        return StepOutput(outputs, {"task": task, "soft": self.soft_weight * soft})
