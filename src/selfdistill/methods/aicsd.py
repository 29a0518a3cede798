from typing import Literal

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
from ..functional.kernel import gram


@METHODS.add("aicsd")
class InterClassSimilarity(Method):
    r"""Tell the classes of a scene apart as a frozen teacher does, by where each is seen.

    Mansourian et al. 2023, https://arxiv.org/abs/2308.04243, made for semantic segmentation. The
    scores of a class over the n places of an image, in a softmax over the places, say where it is
    seen; how far two classes are from each other in that is what the student learns:

    .. math:: S_{ij} = \sum_n P_{i,n} \log \frac{P_{i,n}}{P_{j,n}} \qquad
        L_{ics} = \overline{\left( \hat S^s - \hat S^t \right)^2}

    with each row of S divided by its norm, and the bar a mean over images and pairs of classes. Of
    two classes a row holds a single entry, so three are the fewest. The loss is

    .. math:: L = a \, (L_{task} + \lambda_{ics} L_{ics}) + (1 - a) \, \lambda_{soft} \, L_{soft}

    where a grows from 0 to 1 over the run ("adaptive"): the student begins as the teacher's
    imitator and ends with the labels; "constant" is the plain sum. At its very start the labels
    count for nothing, as the formula says.

    The public code differs from the formula: its softmax runs along columns of the image instead
    of over all places, its divergence is fed probabilities where logarithms are due, and its soft
    term is divided by classes and places. We follow the formula, with the soft loss of the task.
    The published weights, 9500 and 10, belong to that code: here they outweigh the labels a hundred
    times, so the defaults are smaller.

    Args:
        student: the network.
        teacher: a trained network.
        task: what the labels mean.
        similarity: weight :math:`\lambda_{ics}` ≥ 0; chosen here.
        soft: weight :math:`\lambda_{soft}` ≥ 0; 0.5, the published 10 by the 21
            classes of VOC.
        temperature: of the soft loss; 1 in the code.
        weighting: "adaptive", or "constant" for the plain sum of all terms.
        cells: scores are averaged down to at most so many places a side before they are compared,
            which bounds the memory; chosen here.

    Raises:
        ConfigError: fewer than three classes, or `cells` below 1.
    """

    kind = "offline"
    provenance = Provenance.NOTES
    needs = Needs(class_scores=True, dense_scores=True)

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        task: Task,
        *,
        similarity: float = 100.0,
        soft: float = 0.5,
        temperature: float = 1.0,
        weighting: Literal["adaptive", "constant"] = "adaptive",
        cells: int = 64,
    ) -> None:
        super().__init__()
        if similarity and len(task.classes) < 3:
            raise ConfigError(
                "aicsd compares where classes are seen, which takes three classes or more, not "
                f"{len(task.classes)}; set similarity=0, or take kd"
            )
        if cells < 1:
            raise ConfigError(f"cells={cells} leaves no place to look at; give 1 or more")
        self.student, self.teacher, self.task = student, Frozen(teacher), task
        self.similarity, self.soft, self.temperature = similarity, soft, temperature
        self.adaptive, self.cells = weighting == "adaptive", cells

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `similarity` and `soft`, the latter two if they have a weight."""
        out, reference = self.student(batch.inputs), self.teacher(batch.inputs)
        share = progress.fraction if self.adaptive else 1.0
        losses = {"task": share * self.task.loss(out, batch.targets)}
        if self.similarity:
            mine, theirs = (similarities(pooled(z, self.cells)) for z in (out, reference))
            losses["similarity"] = share * self.similarity * (mine - theirs).square().mean()
        if self.soft:
            fading = 1.0 - share if self.adaptive else 1.0
            soft = self.task.soft_loss(out, reference, self.temperature)
            losses["soft"] = fading * self.soft * soft
        return StepOutput(out, losses)

    def predictors(self) -> dict[str, nn.Module]:
        """The student alone."""
        return {"student": self.student}


def pooled(scores: Tensor, cells: int) -> Tensor:
    """(B, K, H, W) with sides of at most `cells`, averaged; in fp32."""
    height, width = (min(side, cells) for side in scores.shape[-2:])
    return F.adaptive_avg_pool2d(scores.float(), (height, width))


def similarities(scores: Tensor) -> Tensor:
    """(B, K, H, W) -> (B, K, K): divergence of each class's places from each other's, unit rows."""
    logs = F.log_softmax(scores.flatten(2), dim=2)  # (B, K, N)
    shares = logs.exp()
    own = (shares * logs).sum(2, keepdim=True)  # (B, K, 1)
    divergence = own - gram(shares, logs)
    # two classes seen alike to the last digit would otherwise have a gradient without bounds
    return F.normalize(divergence, dim=2, eps=1e-6)
