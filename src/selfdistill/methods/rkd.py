import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import METHODS, Batch, Needs, Progress, Provenance, StepOutput, Task
from ..functional.kernel import gram
from ..modules.feature_distillation import FeatureDistillation
from ..taps import Taps, Teacher


@METHODS.add("rkd")
class RelationalDistillation(FeatureDistillation):
    r"""Match pairwise distances and triplet angles of the teacher's embeddings.

    Park et al. 2019, https://arxiv.org/abs/1904.05068. Of the pooled last features x of the images
    of a batch,

    .. math:: d_{ij} = \frac{\lVert x_i - x_j \rVert}{\mu} \qquad a_{ijk} = \left\langle
        \frac{x_i - x_j}{\lVert x_i - x_j \rVert}, \frac{x_k - x_j}{\lVert x_k - x_j \rVert}
        \right\rangle

    with μ the mean of the batch's distances, are compared between student s and teacher t with the
    Huber loss l, whose bend is at 1:

    .. math:: L = L_{task} + \lambda_d \, \overline{l(d^s, d^t)} + \lambda_a \, \overline{l(a^s,
        a^t)}

    The means run over all pairs and all triplets, those with twice the same image among them, as in
    the authors' code; μ runs over the distances above 0. Weights are those of the CRD benchmark
    (https://arxiv.org/abs/1910.10699). Two images have no relation but 1, so the terms want three.
    The B³ cosines and the B² differences of D channels are what it costs in memory; each pass of
    each process compares its own share of the batch, so the terms depend on how that is split.

    Not to be confused with residual distillation, which is called RKD, too.

    Args:
        student: the network.
        teacher: a trained network.
        task: what the labels mean.
        distance_weight: weight λ_d ≥ 0 of the distances; the benchmark's 25. 0 leaves them out.
        angle_weight: weight λ_a ≥ 0 of the angles; the benchmark's 50. 0 leaves them out.
        soft_weight: weight ≥ 0 of a soft loss towards the teacher's output; none in the benchmark.
        temperature: τ > 0 of the soft loss; 4 as in the benchmark.
    """

    provenance = Provenance.CODE
    needs = Needs(batch=3)
    teacher_reads = "pooled"

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        soft_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        self.distance_weight, self.angle_weight = distance_weight, angle_weight

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, `distance` and `angle`."""
        outputs, losses, *pooled = self.pooled_forward(batch)
        student, teacher = map(differences, pooled)
        if self.distance_weight:
            loss = F.smooth_l1_loss(relative_distances(student), relative_distances(teacher))
            losses["distance"] = self.distance_weight * loss
        if self.angle_weight:
            loss = F.smooth_l1_loss(cosines(student), cosines(teacher))
            losses["angle"] = self.angle_weight * loss
        return StepOutput(outputs, losses)


def differences(pooled: Tensor) -> Tensor:
    """(B, C) -> (B, B, C): differences of the images' pooled features, in fp32."""
    pooled = pooled.float()
    return pooled[None] - pooled[:, None]


def lengths(difference: Tensor) -> tuple[Tensor, Tensor]:
    """Norms (..., C) -> (...), 1 in place of 0, and whether they are above 0.

    The root is taken of the replaced squares: at 0 its slope is infinite.
    """
    square = difference.square().sum(-1)
    apart = square > 0
    return torch.where(apart, square, 1.0).sqrt(), apart


def relative_distances(difference: Tensor) -> Tensor:
    """(B, B, C) -> (B, B): distances over the mean of those above 0; 0 where all images are one."""
    length, apart = lengths(difference)
    distance = length * apart
    mean = distance.sum() / apart.sum().clamp(min=1)
    return distance / torch.where(apart.any(), mean, 1.0)


def cosines(difference: Tensor) -> Tensor:
    """(B, B, C) -> (B, B, B): at image j between the directions to i and to k, [j, i, k]."""
    direction = difference / lengths(difference)[0].unsqueeze(-1)
    return gram(direction, direction)
