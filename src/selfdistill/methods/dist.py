import torch
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
from ..functional.divergence import mask_weights, weighted_mean
from ..functional.places import resize_scores


@METHODS.add("dist")
class StrongerTeacherDistillation(Method):
    r"""Match how the teacher's probabilities vary over classes and over images, by Pearson's ρ.

    Huang et al. 2022, https://arxiv.org/abs/2205.10536. With class probabilities p, (B, K), that
    are softened by τ, and Pearson's correlation ρ,

    .. math::
        L_{inter} = \frac{\tau^2}{B} \sum_{b=1}^B \left[ 1 - \rho(p^s_{b,:}, p^t_{b,:}) \right]
        \qquad
        L_{intra} = \frac{\tau^2}{K} \sum_{k=1}^K \left[ 1 - \rho(p^s_{:,k}, p^t_{:,k}) \right]

    .. math:: L = L_{task} + \beta L_{inter} + \gamma L_{intra}

    The first term compares how an image's classes relate, the second how a class's probability
    varies over the images of a batch: it depends on the batch size, and sees the share of one pass
    and process. Of scenes, each pixel is an image: as in the authors' segmentation code the second
    term goes over all pixels of the batch. There the student's scores are resized to the teacher's,
    and, unlike there, pixels without a label are left out.

    Terms, weights and the 1e-8 in the denominator are those of the authors' code, for ImageNet by
    default. On CIFAR-100 it has τ = 4, on Cityscapes β = γ = 1, and there a second head that is
    distilled as well, which we have not.

    Args:
        student: the network.
        teacher: a trained network for the same classes.
        task: what the labels mean.
        supervised_weight: weight ≥ 0 of the supervised loss; 1 in the code. 0 leaves it out.
        inter_class_weight: weight β ≥ 0 of the correlation over the classes of an image; 2 in the
            code. 0 leaves it out. Of two classes it is a constant.
        intra_class_weight: weight γ ≥ 0 of the correlation over the images, for each class; 2 in
            the code. 0 leaves it out.
        temperature: τ > 0; 1 in the code.
    """

    kind = "offline"
    provenance = Provenance.CODE
    needs = Needs(batch=2, class_scores=True, teacher_scores=True, images=False)
    teacher_reads = "outputs"

    def __init__(
        self,
        student: nn.Module,
        teacher: Frozen,
        task: Task,
        *,
        supervised_weight: float = 1.0,
        inter_class_weight: float = 2.0,
        intra_class_weight: float = 2.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.weights = {"inter": inter_class_weight, "intra": intra_class_weight}
        if not (supervised_weight or any(self.weights.values())):
            raise ConfigError(
                "dist needs a loss: set supervised_weight, inter_class_weight or "
                "intra_class_weight above 0"
            )
        self.student, self.teacher, self.task = student, teacher, task
        self.supervised_weight, self.temperature = supervised_weight, temperature

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `inter` and `intra`, as far as they have a weight."""
        outputs = self.student(batch.inputs)
        losses = {}
        if self.supervised_weight:
            losses["task"] = self.supervised_weight * self.task.loss(outputs, batch.targets)
        reference = self.teacher.outputs(batch)
        size = reference.shape[2:]
        weight = mask_weights(self.task.valid_mask(batch.targets), size)
        student, teacher = (
            probability_rows(scores, self.temperature)
            for scores in (resize_scores(outputs, size), reference)
        )
        rows = None if weight is None else weight.flatten()
        distances = {
            "inter": weighted_mean(1 - pearson(student, teacher), rows),
            "intra": (1 - pearson(student.T, teacher.T, rows)).mean(),
        }
        for name, distance in distances.items():
            if self.weights[name]:
                losses[name] = self.weights[name] * self.temperature**2 * distance
        return StepOutput(outputs, losses)


def probability_rows(scores: Tensor, temperature: float) -> Tensor:
    """Scores (B, K, ...) -> softened probabilities (N, K) of all samples and positions, in fp32."""
    return (scores.float() / temperature).softmax(1).movedim(1, -1).flatten(0, -2)


def pearson(x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Pearson correlation of each row of x with that of y: (M, N) both -> (M,), 0 if one is flat.

    Args:
        x, y: rows of N values.
        weight: (N,), ≥ 0, of the values; None for 1.
    """
    weight = torch.ones_like(x[0]) if weight is None else weight
    total = weight.sum().clamp(min=1e-6)
    x, y = (z - (weight * z).sum(1, keepdim=True) / total for z in (x, y))
    root = weight.sqrt()
    lengths = (root * x).norm(dim=1) * (root * y).norm(dim=1)
    correlation: Tensor = (weight * x * y).sum(1) / (lengths + 1e-8)
    return correlation
