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
    r"""Say about an image what the network itself says about another image of the same class.

    Yun et al. 2020, https://arxiv.org/abs/2003.13964, Eq. 2; the rows "CS-KD" of MUSE's Table 2:

    .. math:: L = CE(z(x), y) + \lambda \, \tau^2 \, KL\left(softmax(sg\, z(x') / \tau) \,\|\,
        softmax(z(x) / \tau)\right)

    where x' is a uniformly random training image of x's class, augmented on its own. It only
    teaches: no gradient flows through it, and its own label is not learnt from.

    As in the authors' code the partners make a pass of their own in training mode, so batch norm
    sees their statistics there and its running ones move twice a step. The defaults are theirs for
    CIFAR-100 and TinyImageNet. A step costs one forward pass more than plain training, and an epoch
    has as many steps.

    Args:
        student: the network.
        task: what the labels mean.
        soft: weight λ of the soft loss; the authors' 1, for fine-grained classes their 3.
        temperature: τ > 0 of the soft loss; the authors' 4.
    """

    kind = "self"
    provenance = Provenance.CODE
    needs = Needs(same_class=True, image_labels=True)

    def __init__(
        self, student: nn.Module, task: Task, *, soft: float = 1.0, temperature: float = 4.0
    ) -> None:
        super().__init__()
        self.student, self.task = student, task
        self.soft, self.temperature = soft, temperature

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` of the images and `soft`, what their partners teach them."""
        if batch.same_class_inputs is None:
            raise ConfigError(
                "cskd wants with each image another one of its class: "
                "fill Batch.same_class_inputs, as Loader(same_class=True) does"
            )
        out = self.student(batch.inputs)
        with torch.no_grad():
            reference = self.student(batch.same_class_inputs)
        soft = self.soft * self.task.soft_loss(out, reference, self.temperature)
        return StepOutput(out, {"task": self.task.loss(out, batch.targets), "soft": soft})

    def predictors(self) -> dict[str, nn.Module]:
        """The student alone."""
        return {"student": self.student}
