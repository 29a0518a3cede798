from typing import Literal

import torch
from torch import Tensor

from ..core import METHODS, Batch, ConfigError, Needs, Progress, Provenance, StepOutput, Task
from ..functional.local_structure import local_structure_divergence, log_local_structure
from ..modules.feature_distillation import FeatureDistillation
from ..modules.pairs import taps_by_number
from ..taps import Taps, Teacher


@METHODS.add("lsp")
class LocalStructurePreserving(FeatureDistillation):
    r"""Match how similar each node of a graph is to its neighbors, as a distribution over them.

    Yang et al. 2020, https://arxiv.org/abs/2003.10477. With h the features of the nodes at one
    layer and N(i) the nodes with an edge to node i,

    .. math:: L = L_{task} + \lambda \, \frac{1}{N} \sum_i KL(LS_i^s \,\|\, LS_i^t) \qquad
        LS_{ij} = \frac{\exp SIM(h_i, h_j)}{\sum_{k \in N(i)} \exp SIM(h_i, h_k)}

    where SIM is one of the paper's kernels: "rbf" is :math:`\exp(-\lVert h_i - h_j \rVert^2 /
    2\sigma)`, "euclidean" :math:`\lVert h_i - h_j \rVert^2`, "linear" :math:`h_i \cdot h_j` and
    "polynomial" :math:`(h_i \cdot h_j + c)^d`. Only nodes of one network are compared with each
    other, so student and teacher may have any widths. Nodes with fewer than two neighbors add
    nothing. An edge that is given twice counts twice, and a node is its own neighbor only where the
    graph has that edge.

    Public code (DistillGCN.PyTorch) takes KL(teacher ‖ student), "laplacian", which is
    :math:`\exp(-\lVert h_i - h_j \rVert_1 / \sigma)`, and λ = 1, and it reads the teacher's last
    hidden layer and the student's last but one, before their activation. We follow the paper in
    direction and λ, as far as notes about it go, and all of the code's choices are options. That
    code drops the task's loss after 30 epochs for one of its own, which is not followed.

    This is for graphs, which `selfdistill.wrap(..., task="nodes")` trains in a loop of PyTorch
    Geometric. A graph's edges are read from its `edge_index`. Taps are named for both networks, as
    a rule one each: a hidden layer that gives features (N, C).

    Args:
        student: the network.
        teacher: a trained network, which is shown the same graph.
        task: what the labels mean.
        structure_weight: weight λ ≥ 0 of the term; the paper's 100. 0 leaves it out.
        kernel: the similarity SIM of two nodes; which one the paper's main results use is not known
            to us, the default is chosen here.
        kernel_width: σ > 0 of "rbf" and "laplacian"; 100 in both sources.
        kernel_offset: c of "polynomial"; chosen here.
        kernel_degree: d ≥ 1 of "polynomial"; the paper's 2.
        direction: "student_teacher" is KL(student ‖ teacher) as in the paper, "teacher_student"
            KL(teacher ‖ student) as in the public code.
        tap: which tap of both networks, counted from the deepest, 1; chosen here.
        soft_weight: weight ≥ 0 of a soft loss towards the teacher's output; none in the paper.
        temperature: τ > 0 of the soft loss.
    """

    provenance = Provenance.NOTES
    needs = Needs(images=False, graphs=True)

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        structure_weight: float = 100.0,
        kernel: Literal["rbf", "euclidean", "linear", "polynomial", "laplacian"] = "rbf",
        kernel_width: float = 100.0,
        kernel_offset: float = 0.0,
        kernel_degree: int = 2,
        direction: Literal["student_teacher", "teacher_student"] = "student_teacher",
        tap: int = 1,
        soft_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        if kernel_width <= 0:
            raise ConfigError(f"kernel_width={kernel_width:g} divides a distance; give it above 0")
        if kernel_degree < 1:
            raise ConfigError(f"kernel_degree={kernel_degree} leaves no similarity; give 1 or more")
        self.student_tap, self.teacher_tap = taps_by_number(
            student, teacher, tap, from_deepest=True
        )
        self.structure_weight, self.direction = structure_weight, direction
        self.kernel, self.kernel_width = kernel, kernel_width
        self.kernel_offset, self.kernel_degree = kernel_offset, kernel_degree

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `structure`."""
        outputs, losses, student_features, teacher_features = self.paired_forward(batch)
        if self.structure_weight:
            edges = batch.inputs.edge_index
            student = self._log_structure(student_features[self.student_tap], edges)
            with torch.no_grad():
                teacher = self._log_structure(teacher_features[self.teacher_tap], edges)
            pair = (student, teacher) if self.direction == "student_teacher" else (teacher, student)
            divergence = local_structure_divergence(*pair, self.task.num_samples(batch.inputs))
            losses["structure"] = self.structure_weight * divergence
        return StepOutput(outputs, losses)

    def _log_structure(self, features: Tensor, edges: Tensor) -> Tensor:
        """Of features (N, C, 1, 1), (E,)."""
        return log_local_structure(
            features.flatten(1),
            edges,
            self.kernel,
            width=self.kernel_width,
            offset=self.kernel_offset,
            degree=self.kernel_degree,
        )
