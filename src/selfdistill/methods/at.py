from ..core import METHODS, Batch, Needs, Progress, Provenance, StepOutput, Task
from ..functional.attention import attention_map
from ..modules.feature_distillation import FeatureDistillation
from ..modules.pairs import check_positions, paired_shapes, pooled_pairs
from ..taps import Taps, Teacher


@METHODS.add("at")
class AttentionTransfer(FeatureDistillation):
    r"""Match spatial attention maps of student and teacher at every stage.

    Zagoruyko and Komodakis 2017, https://arxiv.org/abs/1612.03928, Eq. 2. With Q the mean of the
    squared channels of a feature, a map of N positions,

    .. math:: L = L_{task} + \beta \sum_i \frac{1}{N_i} \left\lVert \frac{Q_s^i}{\lVert Q_s^i
        \rVert} - \frac{Q_t^i}{\lVert Q_t^i \rVert} \right\rVert^2

    averaged over the images. The paper writes β/2 and the norm without its square; its code and the
    CRD benchmark (https://arxiv.org/abs/1910.10699) take the mean of squares over images and
    positions, for which the 1000 was tuned, and so do we. As in the benchmark, every stage but the
    stem has a term, and of two features the larger is pooled to the size of the smaller, and then
    squared.

    Args:
        student: the network.
        teacher: a trained network with as many taps as the student.
        task: what the labels mean.
        attention_weight: weight β ≥ 0 of the attention terms; the authors' 1000. 0 leaves them out.
        soft_weight: weight ≥ 0 of a soft loss towards the teacher's output; none in the benchmark.
        temperature: τ > 0 of the soft loss; 4 as in the benchmark.
    """

    provenance = Provenance.CODE
    default_taps = "stages"
    needs = Needs(clips=True)

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        attention_weight: float = 1000.0,
        soft_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        check_positions(paired_shapes(student, teacher))
        self.attention_weight = attention_weight

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `attention/i` of each stage."""
        outputs, losses, student_features, teacher_features = self.paired_forward(batch)
        if self.attention_weight:
            pairs = pooled_pairs(student_features, teacher_features)
            for i, (x, target) in enumerate(pairs, 1):
                distance = (attention_map(x) - attention_map(target)).square().mean()
                losses[f"attention/{i}"] = self.attention_weight * distance
        return StepOutput(outputs, losses)
