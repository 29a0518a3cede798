from typing import Literal

import torch
from torch import Tensor, nn

from ..core import METHODS, Batch, Method, Needs, Progress, Provenance, StepOutput, Task
from ..functional.kernel import gram
from ..modules.pairs import paired_shapes
from ..taps import Taps, Teacher


@METHODS.add("sp")
class SimilarityPreserving(Method):
    r"""Find alike the images that a frozen teacher finds alike.

    Tung and Mori 2019, https://arxiv.org/abs/1907.09682. With the features of a batch
    of B images as rows of a matrix Q,

    .. math:: L = L_{task} + \frac{\gamma}{B^2} \sum_i \left\lVert G_s^i - G_t^i
        \right\rVert_F^2 \qquad G_{bc} = \frac{(Q Q^\top)_{bc}}{\lVert (Q Q^\top)_b \rVert}

    Neither channels nor sizes have to agree, and nothing is learned beside the student. The paper
    sums over pairs of layers; the CRD benchmark (https://arxiv.org/abs/1910.10699), whose form the
    author has confirmed, takes the end of the last stage alone and γ = 3000, as is the default
    here. Each process compares the images of its own share.

    Args:
        student: the network.
        teacher: a trained network.
        task: what the labels mean.
        similarity: weight γ of the similarity terms; the benchmark's 3000. 0 leaves them out.
        stages: "last" takes the deepest tap of both networks, "all" each with its counterpart.
        soft: weight of a soft loss towards the teacher's output; none in the benchmark.
        temperature: of the soft loss; 4 as in the benchmark.
    """

    kind = "offline"
    provenance = Provenance.CODE
    needs = Needs(batch=2)

    def __init__(
        self,
        student: Taps,
        teacher: Taps,
        task: Task,
        *,
        similarity: float = 3000.0,
        stages: Literal["last", "all"] = "last",
        soft: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__()
        count = len(paired_shapes(student, teacher)) if stages == "all" else 1
        self.pairs = list(zip(student.names[-count:], teacher.names[-count:], strict=True))
        self.first = len(student.names) - count + 1  # a term bears the number of its stage
        self.student, self.teacher, self.task = student, Teacher(teacher), task
        self.similarity, self.soft, self.temperature = similarity, soft, temperature

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `similarity/i` of each stage that is compared."""
        out, mine = self.student.forward_features(batch.inputs)
        reference, theirs = self.teacher.forward_features(batch.inputs)  # without a gradient
        losses = {"task": self.task.loss(out, batch.targets)}
        if self.soft:
            losses["soft"] = self.soft * self.task.soft_loss(out, reference, self.temperature)
        if self.similarity:
            for i, (name, other) in enumerate(self.pairs, self.first):
                gap = (similarities(mine[name]) - similarities(theirs[other])).square().mean()
                losses[f"similarity/{i}"] = self.similarity * gap
        return StepOutput(out, losses)

    def predictors(self) -> dict[str, nn.Module]:
        """The student alone."""
        return {"student": self.student.network}


def similarities(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, B): inner products of the images' features, rows of unit length.

    The row of an image whose feature is zero stays zero, with a finite gradient.
    """
    rows = x.flatten(1)
    products = gram(rows, rows)
    length = products.norm(dim=1, keepdim=True)
    return products / torch.where(length > 0, length, 1.0)
