from ..core import METHODS, Batch, Progress, Provenance, StepOutput, Task
from ..functional.kernel import channel_discrepancy
from ..modules.feature_distillation import FeatureDistillation
from ..modules.pairs import check_positions, paired_shapes, pooled_pairs
from ..taps import Taps, Teacher


@METHODS.add("nst")
class NeuronSelectivityTransfer(FeatureDistillation):
    r"""Match the distributions of channel activation maps of student and teacher by MMD.

    Huang and Wang 2017, https://arxiv.org/abs/1707.01219, Eq. 8, with the polynomial kernel
    :math:`k(x, y) = (x^\top y)^2`. The channels of a feature, each a map over the positions scaled
    to unit length, are a sample of a distribution; the squared maximum mean discrepancy between
    student's and teacher's is minimized:

    .. math:: L = L_{task} + \beta \sum_i \left[ \overline{k(x_c, x_d)} + \overline{k(t_c, t_d)}
        - 2 \overline{k(x_c, t_d)} \right]_i

    where bars are means over all pairs of channels and over images. The numbers of channels may
    differ and nothing is learned beside the student.

    The paper takes the last feature alone and, as recalled, β/2 with β = 50; the CRD benchmark
    (https://arxiv.org/abs/1910.10699) takes the end of every stage, not the stem, and β = 50, pools
    the larger of two features to the size of the smaller, and is what we follow. The term of the
    teacher with itself is a constant; it is kept, so that the value is 0 or more.

    Args:
        student: the network.
        teacher: a trained network with as many taps as the student.
        task: what the labels mean.
        mmd_weight: weight β ≥ 0 of the discrepancies; the benchmark's 50. 0 leaves them out.
        soft_weight: weight ≥ 0 of a soft loss towards the teacher's output; none in the benchmark.
        temperature: τ > 0 of the soft loss; 4 as in the benchmark.
    """

    provenance = Provenance.BENCHMARK
    default_taps = "stages"

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        mmd_weight: float = 50.0,
        soft_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        check_positions(paired_shapes(student, teacher))
        self.mmd_weight = mmd_weight

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `selectivity/i` of each stage."""
        outputs, losses, student_features, teacher_features = self.paired_forward(batch)
        if self.mmd_weight:
            pairs = pooled_pairs(student_features, teacher_features)
            for i, (x, target) in enumerate(pairs, 1):
                losses[f"selectivity/{i}"] = self.mmd_weight * channel_discrepancy(x, target)
        return StepOutput(outputs, losses)
