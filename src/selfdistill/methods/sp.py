from typing import Literal

import torch
from torch import Tensor

from ..core import METHODS, Batch, Needs, Progress, Provenance, StepOutput, Task
from ..functional.kernel import gram
from ..modules.feature_distillation import FeatureDistillation
from ..modules.pairs import paired_shapes
from ..taps import Taps, Teacher


@METHODS.add("sp")
class SimilarityPreserving(FeatureDistillation):
    r"""Match the pairwise similarity matrix of a batch's features between student and teacher.

    Tung and Mori 2019, https://arxiv.org/abs/1907.09682. With the features of a batch of B images
    as rows of a matrix Q,

    .. math:: L = L_{task} + \frac{\gamma}{B^2} \sum_i \left\lVert G_s^i - G_t^i
        \right\rVert_F^2 \qquad G_{bc} = \frac{(Q Q^\top)_{bc}}{\lVert (Q Q^\top)_b \rVert}

    Neither channels nor sizes have to agree, and nothing is learned beside the student. The paper
    sums over pairs of layers; the CRD benchmark (https://arxiv.org/abs/1910.10699), whose form the
    author has confirmed, takes the end of the last stage alone, before any layers between it and
    the classifier, and γ = 3000, as is the default here. Each pass of each process compares its own
    share of the batch, so the term depends on how that is split.

    Args:
        student: the network.
        teacher: a trained network.
        task: what the labels mean.
        similarity_weight: weight γ ≥ 0 of the similarity terms; the benchmark's 3000. 0 leaves them
            out.
        stages: "last" compares the deepest tap of both networks, "all" stage i with stage i.
        soft_weight: weight ≥ 0 of a soft loss towards the teacher's output; none in the benchmark.
        temperature: τ > 0 of the soft loss; 4 as in the benchmark.
    """

    provenance = Provenance.CODE
    default_taps = "stages"
    needs = Needs(batch=2)

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        similarity_weight: float = 3000.0,
        stages: Literal["last", "all"] = "last",
        soft_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        count = len(paired_shapes(student, teacher)) if stages == "all" else 1
        self.pairs = list(zip(student.names[-count:], teacher.names[-count:], strict=True))
        self.first_stage = len(student.names) - count + 1
        self.similarity_weight = similarity_weight

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `similarity/i` of each stage that is compared."""
        outputs, losses, student_features, teacher_features = self.paired_forward(batch)
        if self.similarity_weight:
            for i, (student_tap, teacher_tap) in enumerate(self.pairs, self.first_stage):
                student_similarities = similarity_matrix(student_features[student_tap])
                teacher_similarities = similarity_matrix(teacher_features[teacher_tap])
                distance = (student_similarities - teacher_similarities).square().mean()
                losses[f"similarity/{i}"] = self.similarity_weight * distance
        return StepOutput(outputs, losses)


def similarity_matrix(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, B): inner products of the images' features, rows of unit length.

    The row of an image whose feature is zero stays zero, with a finite gradient.
    """
    vectors = x.flatten(1)
    products = gram(vectors, vectors)
    length = products.norm(dim=1, keepdim=True)
    return products / torch.where(length > 0, length, 1.0)
