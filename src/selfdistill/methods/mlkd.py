from typing import Literal

import torch
import torch.nn.functional as F
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
from ..functional.kernel import gram


@METHODS.add("mlkd")
class MultiLevelLogitDistillation(Method):
    r"""Match logits of each image, between the images of a batch and between classes, at several τ.

    Multi-level logit distillation, Jin et al. 2023, https://doi.org/10.1109/CVPR52729.2023.02325,
    and its authors' code. With P the probabilities (B, K) of a batch at temperature τ, and the
    temperatures 2, 3, 4, 5 and 6 (prediction augmentation),

    .. math:: L = a \sum_v L_{task}(z_v) + b \sum_\tau \Big[ \sum_v w_{v\tau} \tau^2
        KL(P^t_v \,\|\, P^s_v)
        + \frac{w}{B} \left\lVert P^t P^{t\top} - P^s P^{s\top} \right\rVert^2
        + \frac{w}{K} \left\lVert P^{t\top} P^t - P^{s\top} P^s \right\rVert^2 \Big]

    where v is one of two views of the images, each a pass of its own, and the last two terms, which
    relate images and classes, are of the first view. They depend on how a batch is split: B is the
    images of a process and pass.

    With `variant="plain"` all w are 1. "released" has those that the code comes to, with which the
    published figures were made. There w = 1/2 for the first view and for images and classes: the
    code multiplies each sum by the mean of a mask of those that the teacher is no surer of than of
    the median, which is a half, and of an odd number the larger half. The second view has 1; but of
    the two outermost temperatures the code takes the first where the second is meant, so that the
    first has 3/2 there, and the second none.

    The code's second view is a stronger augmentation: crop and mirror like the first, then two
    random operations (of brightness, contrast, color, sharpness, equalization, posterization,
    solarization, rotation, shear and translation) and a gray square of up to half the image's side.
    Here it is a second draw of the augmentation of the first, with `--color-jitter` if that is
    given. So figures of the paper are not to be expected; in a custom loop pass images augmented
    like that as the view.

    Args:
        student: the network.
        teacher: a trained network for the same classes.
        task: what the labels mean; each image has one class.
        supervised_weight: weight a ≥ 0 of the supervised loss of each view; the code's 0.1 for
            CIFAR-100 (0.5 for ImageNet). 0 leaves it out.
        soft_weight: weight b ≥ 0 of all levels; the code's 0.9 for CIFAR-100 (0.5 for ImageNet). 0
            leaves them out.
        temperature: the middle τ > 0 of the temperatures; the code's 4 for CIFAR-100.
        num_temperatures: how many, in steps of 1 around the middle; 5 in the code.
        variant: weights of the terms, "released" or "plain", see above.
    """

    kind = "offline"
    provenance = Provenance.CODE
    needs = Needs(views=2, image_labels=True, teacher_scores=True)
    teacher_reads = "outputs"

    def __init__(
        self,
        student: nn.Module,
        teacher: Frozen,
        task: Task,
        *,
        supervised_weight: float = 0.1,
        soft_weight: float = 0.9,
        temperature: float = 4.0,
        num_temperatures: int = 5,
        variant: Literal["released", "plain"] = "released",
    ) -> None:
        super().__init__()
        if not (supervised_weight or soft_weight):
            raise ConfigError("mlkd needs a loss: set supervised_weight or soft_weight above 0")
        lowest = temperature - (num_temperatures - 1) / 2
        if num_temperatures < 1 or lowest <= 0:
            raise ConfigError(
                f"{num_temperatures} temperatures in steps of 1 around {temperature:g} are not all "
                "above 0; take fewer, or a higher temperature"
            )
        self.student, self.teacher, self.task = student, teacher, task
        self.supervised_weight, self.soft_weight = supervised_weight, soft_weight
        self.temperatures = [lowest + i for i in range(num_temperatures)]
        self.temperature, self.variant = temperature, variant

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, summed over the views, and `instance`, `batch` and `class`."""
        if not batch.views:
            raise ConfigError(
                "mlkd needs two views of each image: fill Batch.views, as Loader(views=2) does"
            )
        views = (batch.inputs, batch.views[0])
        outputs = [self.student(view) for view in views]
        losses: dict[str, Tensor] = {}
        if self.supervised_weight:
            supervised = [self.task.loss(output, batch.targets) for output in outputs]
            losses["task"] = self.supervised_weight * torch.stack(supervised).sum()
        if self.soft_weight:
            references = [self.teacher.outputs(batch, view) for view in range(len(views))]
            levels = self._levels(outputs, references)
            losses |= {name: self.soft_weight * loss for name, loss in levels.items()}
        return StepOutput(outputs[0], losses)

    def _levels(self, outputs: list[Tensor], references: list[Tensor]) -> dict[str, Tensor]:
        """Each level's loss, summed over the temperatures."""
        instance, of_images, of_classes = [], [], []
        image_share, class_share = (self._share(size) for size in outputs[0].shape)
        for tau in self.temperatures:
            weights = self._view_weights(tau, image_share)
            for weight, z, reference in zip(weights, outputs, references, strict=True):
                if weight:
                    instance.append(weight * kl_divergence(z, reference, tau))
            student, teacher = (F.softmax(z[0].float() / tau, 1) for z in (outputs, references))
            of_images.append(image_share * gram_distance(student, teacher))
            of_classes.append(class_share * gram_distance(student.T, teacher.T))
        levels = {"instance": instance, "batch": of_images, "class": of_classes}
        return {name: torch.stack(losses).sum() for name, losses in levels.items()}

    def _share(self, count: int) -> float:
        """The mean of the code's mask of so many images or classes, without ties."""
        return 1.0 if self.variant == "plain" else (count + 1) // 2 / count

    def _view_weights(self, tau: float, share: float) -> tuple[float, float]:
        """Of both views in the term of each image."""
        outermost = self.variant == "released" and abs(tau - self.temperature) > 1
        return (share + 1, 0.0) if outermost else (share, 1.0)


def gram_distance(x: Tensor, y: Tensor) -> Tensor:
    """Squared distance of the Gram matrices of the rows of two matrices (N, D), over N, in fp32."""
    return (gram(x, x) - gram(y, y)).square().sum() / len(x)
