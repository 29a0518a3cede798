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
from ..functional.divergence import mask_weights
from ..functional.kernel import gram


@METHODS.add("aicsd")
class InterClassSimilarity(Method):
    r"""Match inter-class similarity matrices of spatial score maps, with adaptive loss weighting.

    Mansourian et al. 2023, https://arxiv.org/abs/2308.04243, made for semantic segmentation. The
    scores of a class over the n positions of an image, in a softmax over the positions, are a
    spatial distribution; the student learns the divergences between those of any two classes:

    .. math:: S_{ij} = \sum_n P_{i,n} \log \frac{P_{i,n}}{P_{j,n}} \qquad
        L_{ics} = \overline{\left( \hat S^s - \hat S^t \right)^2}

    with each row of S divided by its norm, and the bar a mean over images and pairs of classes.
    Positions that are void do not count, and others as far as they are labeled, which is ours. Of
    two classes a row holds a single entry, so three are the fewest. The loss is

    .. math:: L = a \, (L_{task} + \lambda_{ics} L_{ics}) + (1 - a) \, \lambda_{soft} \, L_{soft}

    where a grows linearly from 0 to 1 over the run ("adaptive"): at its start the soft loss alone
    trains the student, as the formula says, at its end the labels; "constant" is the plain sum.

    The public code differs from the formula: its softmax runs along columns of the image instead of
    over all positions, its divergence is fed probabilities where logarithms are due, and its soft
    term is divided by classes and positions. We follow the formula, with the soft loss of the task.
    The published weights, 9500 and 10, belong to that code: here they outweigh the labels a hundred
    times, so the defaults are smaller.

    Args:
        student: the network.
        teacher: a trained network.
        task: what the labels mean.
        similarity_weight: weight :math:`\lambda_{ics}` ≥ 0; chosen here.
        soft_weight: weight :math:`\lambda_{soft}` ≥ 0; 0.5, the published 10 by the 21 classes of
            VOC.
        temperature: τ > 0 of the soft loss; 1 in the code.
        weighting: "adaptive", or "constant" for the plain sum of all terms.
        grid_size: positions a side, 1 or more, to which score maps are averaged down before they
            are compared, which bounds the memory; chosen here.

    Raises:
        ConfigError: fewer than three classes, or `grid_size` below 1.
    """

    kind = "offline"
    provenance = Provenance.NOTES
    needs = Needs(class_scores=True, dense_scores=True, teacher_scores=True)
    teacher_reads = "outputs"

    def __init__(
        self,
        student: nn.Module,
        teacher: Frozen,
        task: Task,
        *,
        similarity_weight: float = 100.0,
        soft_weight: float = 0.5,
        temperature: float = 1.0,
        weighting: Literal["adaptive", "constant"] = "adaptive",
        grid_size: int = 64,
    ) -> None:
        super().__init__()
        if similarity_weight and len(task.classes) < 3:
            raise ConfigError(
                "aicsd compares classes with one another, which takes three classes or more, not "
                f"{len(task.classes)}; set similarity_weight=0, or take kd"
            )
        if grid_size < 1:
            raise ConfigError(f"grid_size={grid_size} leaves no position; give 1 or more")
        self.student, self.teacher, self.task = student, teacher, task
        self.similarity_weight, self.soft_weight = similarity_weight, soft_weight
        self.temperature, self.grid_size = temperature, grid_size
        self.adaptive = weighting == "adaptive"
        self.needs = self.needs._replace(run_length=self.adaptive)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `similarity` and `soft`, the latter two if they have a weight."""
        outputs = self.student(batch.inputs)
        reference = self.teacher.outputs(batch)
        rising = progress.fraction if self.adaptive else 1.0
        losses = {"task": rising * self.task.loss(outputs, batch.targets)}
        mask = self.task.valid_mask(batch.targets)
        if self.similarity_weight:
            student, teacher = (pooled(x, self.grid_size) for x in (outputs, reference))
            distance = similarity_distance(student, teacher, mask)
            losses["similarity"] = rising * self.similarity_weight * distance
        if self.soft_weight:
            falling = 1.0 - rising if self.adaptive else 1.0
            soft = self.task.soft_loss(outputs, reference, self.temperature, mask=mask)
            losses["soft"] = falling * self.soft_weight * soft
        return StepOutput(outputs, losses)


def pooled(scores: Tensor, grid_size: int) -> Tensor:
    """(B, K, H, W) averaged to sides of at most `grid_size`, in fp32."""
    height, width = (min(side, grid_size) for side in scores.shape[-2:])
    return F.adaptive_avg_pool2d(scores.float(), (height, width))


def similarity_distance(scores: Tensor, reference: Tensor, mask: Tensor | None) -> Tensor:
    """The mean square of Ŝ^s − Ŝ^t over pairs of classes and images; 0 without a labeled one.

    Args:
        scores, reference: (B, K, h, w) each, at one size or two.
        mask: (B, H, W) bool, which pixels are labeled; None for all.
    """
    student, teacher = (
        interclass_similarity(x, mask_weights(mask, x.shape[-2:])) for x in (scores, reference)
    )
    distances = (student - teacher).square().mean((1, 2))
    if mask is None:
        return distances.mean()
    labeled = mask.flatten(1).any(1)
    return (distances * labeled).sum() / labeled.sum().clamp(min=1)


def interclass_similarity(scores: Tensor, weight: Tensor | None = None) -> Tensor:
    """(B, K, H, W) -> (B, K, K): divergences between spatial distributions, rows of unit length.

    Args:
        scores: of K classes.
        weight: (B, H, W) ≥ 0, how far each position counts; where none does all count alike.
    """
    logits = scores.flatten(2)  # (B, K, N)
    if weight is not None:
        weight = weight.flatten(1)[:, None]
        weight = torch.where(weight.any(2, keepdim=True), weight, 1.0)
        logits = logits + weight.log()
    log_probabilities = F.log_softmax(logits, dim=2)
    probabilities = log_probabilities.exp()
    if weight is not None:  # 0 log 0 is 0
        log_probabilities = torch.where(weight > 0, log_probabilities, 0.0)
    negative_entropy = (probabilities * log_probabilities).sum(2, keepdim=True)  # (B, K, 1)
    divergence = negative_entropy - gram(probabilities, log_probabilities)
    # two classes with equal maps would otherwise have an unbounded gradient
    return F.normalize(divergence, dim=2, eps=1e-6)
