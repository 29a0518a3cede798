from torch import nn

from ..core import METHODS, Batch, Progress, Provenance, StepOutput, Task
from ..functional.gradient_routing import scale_grad
from ..modules.feature_distillation import FeatureDistillation
from ..modules.pairs import paired_shapes, pooled_pairs
from ..modules.variational import VariationalGaussian
from ..taps import Taps, Teacher


@METHODS.add("vid")
class VariationalInformationDistillation(FeatureDistillation):
    r"""Maximize a variational lower bound of the mutual information with the teacher's features.

    Ahn et al. 2019, https://arxiv.org/abs/1904.05835, Eq. 5 and 6. With the features :math:`x_i` of
    the student and :math:`t_i` of the teacher,

    .. math:: L = L_{task} + \beta \sum_i \overline{\frac{(t_i - \mu_i(x_i))^2}{2 \sigma_i^2} +
        \log \sigma_i}

    where the bar is the mean over images, channels and positions. The term is, up to a constant,
    minus a lower bound of the mutual information of the two features under a learned Gaussian: a
    network μ predicts the teacher's feature, and each of its channels has a variance that is
    learned with it. It falls below 0 where the prediction is good.

    Follows the CRD benchmark (https://arxiv.org/abs/1910.10699), which took it from the authors: μ
    is three 1×1 convolutions, all variances are 5 at first, all stages but the stem have weight 1,
    and the larger of two features is pooled to the size of the smaller. As recalled, the paper
    weighs layers one by one, has batch norm in μ and a term for the logits, too. One public library
    keeps the variances in a list, where no optimizer finds them; here they are trained.

    Args:
        student: the network.
        teacher: a trained network with as many taps as the student.
        task: what the labels mean.
        variational_weight: weight β ≥ 0 of the bounds in the student's gradient, their networks
            learn at full rate; the benchmark's 1. 0 leaves them out.
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
        variational_weight: float = 1.0,
        soft_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        self.variational_weight = variational_weight
        pairs = paired_shapes(student, teacher)
        self.bounds = nn.ModuleList(
            VariationalGaussian(x[0], t[0]) for x, t in pairs if variational_weight
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `variational/i` of each stage."""
        outputs, losses, student_features, teacher_features = self.paired_forward(batch)
        if self.variational_weight:
            pairs = pooled_pairs(student_features, teacher_features)
            for i, (bound, (x, target)) in enumerate(zip(self.bounds, pairs, strict=True), 1):
                pressed = scale_grad(x, self.variational_weight)  # the bound learns at full rate
                losses[f"variational/{i}"] = bound(pressed, target)
        return StepOutput(outputs, losses)
