import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Needs,
    Progress,
    Provenance,
    StepOutput,
    Task,
)
from ..functional.gradient_routing import scale_grad
from ..functional.kernel import gram
from ..functional.transport import sinkhorn_plan
from ..modules.memory import MemoryBank
from ..modules.memory_distillation import MemoryDistillation
from ..taps import Taps, Teacher


@METHODS.add("wcord")
class WassersteinContrast(MemoryDistillation):
    r"""Match the teacher by Wasserstein distances: dual over memories, primal in the batch.

    Chen et al. 2021, "Wasserstein Contrastive Representation Distillation",
    https://arxiv.org/abs/2012.08674. It takes the memories of CRD and replaces its losses. No code
    is public, and the paper itself could not be read: terms and weights follow notes about it, and
    critic, projection and Sinkhorn's numbers are a reconstruction, chosen here.

    *Global* contrastive knowledge transfer tells pairs of one image from pairs of two, by the dual
    form of the Wasserstein distance between the two distributions. Its critic is 1-Lipschitz, and
    on the side of the student :math:`c(h_S, m) = v_S \cdot m`, with

    .. math:: v_S = \frac{W_S}{\lVert W_S \rVert_2} \frac{h_S}{\lVert h_S \rVert}, \qquad
        G(v, m) = -v \cdot m_0 + \frac{w}{K} \sum_{k=1}^K v \cdot m_k

    where :math:`h_S` is the pooled last feature, :math:`m_0` the row of the image itself in the
    memory of the other network, and :math:`m_1 … m_K` are rows of images of other classes. The
    scaled feature, v and the rows have lengths of at most 1, so scores lie in -1 … 1. The length is
    taken off before the layer: behind it, that would undo the spectral norm. A bias would cancel
    between positives and negatives, on average. At w = 1 the negated loss is a lower bound of the
    distance; notes have M in place of w, which lowers the scores of negatives M times as hard as it
    raises those of positives.

    *Local* contrastive knowledge transfer is the primal form between the features of a batch:

    .. math:: T = \sum_{ij} P_{ij} C_{ij}, \qquad C_{ij} = 1 - \cos(A h_S^i + b, \, h_T^j), \qquad
        P = \mathrm{Sinkhorn}(sg\, C)

    It compares two sets, and any image may go with any other. P is constant in the gradient. Notes
    have a layer on the side of the teacher, too; it could map all images to one vector, at which
    nothing is left to learn, so here the teacher's feature is the target as it is. Each pass of
    each process compares its own share of the batch.

    .. math:: L = L_{task} + \lambda_1 \left[ G(v_S, m_T) + G(v_T, m_S) \right] + \lambda_2 T
        + a L_{soft}

    The λ weigh what reaches the student's features; critic and projection learn at their full rate.

    The spectral norm is the length of W u, where u, of length 1, makes a step of power iteration
    after each step of the optimizer. W starts orthogonal, where this is exact; where another
    singular value overtakes the largest, as in the first steps, it lags some steps behind. The
    memories take 2·N·D numbers, 51 MB for 50,000 images, are kept in checkpoints and shared by all
    processes.

    Args:
        student: a network; its last tap is compared.
        teacher: a trained network; its last tap is compared.
        task: what the labels mean; one class an image.
        train_labels: classes of all training images, in the order of `Batch.indices`.
        global_weight: weight λ1 ≥ 0 of the global term; 0.8 by the notes. 0 leaves it out, and with
            it the memories.
        local_weight: weight λ2 ≥ 0 of the local term; 0.05 by the notes. 0 leaves it out.
        soft_weight: weight a ≥ 0 of the soft loss; 1 is chosen here for the paper's WCoRD+KD.
        temperature: > 0, of the soft loss; 4 by the notes.
        negatives_weight: weight w ≥ 0 of the negatives' mean score; chosen here.
        num_negatives: K, 1 or more, as in CRD; capped at the number of images outside the largest
            class.
        embedding_width: dimension D of the embeddings, as in CRD.
        memory_momentum: fraction of its old value that an updated row of the memory keeps, in
            [0, 1), as in CRD.
        sinkhorn_regularization: ε > 0 of the local term, in the unit of its costs, which are 0 … 2;
            0.05 to 0.1 by the notes.
        num_sinkhorn_iterations: 1 or more; 20 to 50 by the notes.
    """

    provenance = Provenance.NOTES
    needs = Needs(image_labels=True, single_label=True)
    teacher_reads = "pooled"

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        train_labels: Tensor,
        *,
        global_weight: float = 0.8,
        local_weight: float = 0.05,
        soft_weight: float = 0.0,
        temperature: float = 4.0,
        negatives_weight: float = 1.0,
        num_negatives: int = 16384,
        embedding_width: int = 128,
        memory_momentum: float = 0.5,
        sinkhorn_regularization: float = 0.1,
        num_sinkhorn_iterations: int = 50,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        if not (global_weight or local_weight or soft_weight):
            raise ConfigError(
                "without global, local and soft term wcord is method 'ce'; set one of their "
                "weights above 0"
            )
        if sinkhorn_regularization <= 0 or num_sinkhorn_iterations < 1:
            raise ConfigError(
                "Sinkhorn's iteration takes sinkhorn_regularization above 0, not "
                f"{sinkhorn_regularization}, and num_sinkhorn_iterations of 1 or more, not "
                f"{num_sinkhorn_iterations}"
            )
        self.global_weight, self.local_weight = global_weight, local_weight
        self.negatives_weight = negatives_weight
        self.regularization, self.num_iterations = sinkhorn_regularization, num_sinkhorn_iterations
        channels, teacher_channels = (list(n.shapes.values())[-1][0] for n in (student, teacher))
        if global_weight:
            self.embed_student = LipschitzEmbedding(channels, embedding_width)
            self.embed_teacher = LipschitzEmbedding(teacher_channels, embedding_width)
            self.add_memories(train_labels, num_negatives, embedding_width, memory_momentum)
        if local_weight:
            self.projection = nn.Linear(channels, teacher_channels)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, and `global`, `local` and `soft`, as far as they have a weight."""
        outputs, losses, student_vector, teacher_vector = self.pooled_forward(batch)
        if self.local_weight:
            x = scale_grad(student_vector, self.local_weight)
            losses["local"] = self._transport_cost(x, teacher_vector)
        if not self.global_weight:
            return StepOutput(outputs, losses)
        v_student = self.embed_student(scale_grad(student_vector, self.global_weight))  # (B, D)
        v_teacher = self.embed_teacher(teacher_vector)
        negatives = self.negatives(batch.indices, progress)
        rows = torch.cat([batch.indices[:, None], negatives], 1)  # (B, 1 + K)
        student = self._contrast(self.memory_teacher, v_student, rows)
        teacher = self._contrast(self.memory_student, v_teacher, rows)
        losses["global"] = student + teacher
        monitors = {"global/student": student.detach(), "global/teacher": teacher.detach()}
        step: StepOutput = self.record(
            self,
            StepOutput(outputs, losses, monitors),
            *(batch.indices, F.normalize(v_student.detach()), F.normalize(v_teacher.detach())),
        )
        return step

    def _contrast(self, memory: MemoryBank, embedding: Tensor, rows: Tensor) -> Tensor:
        """G, from embeddings (B, D) and rows of the other network's memory (B, 1 + K)."""
        scores: Tensor = memory(embedding, rows)
        return self.negatives_weight * scores[:, 1:].mean() - scores[:, 0].mean()

    def _transport_cost(self, student_vector: Tensor, teacher_vector: Tensor) -> Tensor:
        """T, from pooled features (B, C) of both networks."""
        projected = self.projection(student_vector).float()
        cost = 1 - gram(F.normalize(projected), F.normalize(teacher_vector.float()))  # (B, B)
        plan = sinkhorn_plan(cost.detach(), self.regularization, self.num_iterations)
        return (plan * cost).sum()

    def after_step(self, progress: Progress) -> None:
        """Updates memories and spectral norms."""
        if self.update_memories():
            self.embed_student.iterate()
            self.embed_teacher.iterate()


class LipschitzEmbedding(nn.Module):
    """A feature scaled to unit length, through a linear layer divided by its spectral norm.

    It is 1-Lipschitz in the scaled feature, and its values are not longer than 1. A feature of zero
    stays zero, with a finite gradient. The norm is that of Miyato et al. 2018,
    https://arxiv.org/abs/1802.05957, but for the power iteration, which is no part of the forward
    pass.

    Args:
        channels: C, of the feature.
        width: D, of the embedding.
    """

    direction: Tensor

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(width, channels)))
        # all singular values are 1, and one iteration moves any direction into their space
        self.register_buffer("direction", torch.randn(1, channels))
        self.iterate()

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, C) -> (B, D), in fp32."""
        pooled = pooled.float()
        length = pooled.norm(dim=1, keepdim=True)
        pooled = pooled / torch.where(length > 0, length, 1.0)
        norm: Tensor = gram(self.direction, self.weight).norm()
        return gram(pooled, self.weight) / norm

    @torch.no_grad()
    def iterate(self) -> None:
        """Turn the direction towards the one that the layer makes longest."""
        stretched = self.direction @ self.weight.T @ self.weight
        self.direction.copy_(F.normalize(stretched))
