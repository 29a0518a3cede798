from torch import nn

from ..core import METHODS, Batch, Method, Progress, Provenance, StepOutput, Task
from ..modules.pairs import paired_shapes, pooled_pairs
from ..modules.variational import VariationalGaussian
from ..taps import Taps, Teacher


@METHODS.add("vid")
class VariationalInformationDistillation(Method):
    r"""Keep, stage by stage, what is needed to tell a frozen teacher's feature.

    Ahn et al. 2019, https://arxiv.org/abs/1904.05835, Eq. 5 and 6. With the features :math:`x_i` of
    the student and :math:`t_i` of the teacher,

    .. math:: L = L_{task} + \beta \sum_i \overline{\frac{(t_i - \mu_i(x_i))^2}{2 \sigma_i^2} +
        \log \sigma_i}

    where the bar is the mean over images, channels and positions. The term is, up to a constant,
    minus a lower bound of the mutual information of the two features under a learned Gaussian: a
    network μ predicts the teacher's feature, and each of its channels has a variance that is
    learned with it. It falls below 0 where the prediction is good.

    Follows the CRD benchmark (https://arxiv.org/abs/1910.10699), which took it from the authors: μ
    is three 1×1 convolutions, all variances are 5 at first, all stages have weight 1, and the
    larger of two features is pooled to the size of the smaller. As recalled, the paper weighs
    layers one by one, has batch norm in μ and a term for the logits, too. One public library keeps
    the variances in a list, where no optimizer finds them; here they are trained.

    Args:
        student: the network.
        teacher: a trained network with as many taps as the student.
        task: what the labels mean.
        variational: weight β of the bounds; the benchmark's 1. 0 leaves them out.
        soft: weight of a soft loss towards the teacher's output; none in the benchmark.
        temperature: of the soft loss; 4 as in the benchmark.
    """

    kind = "offline"
    provenance = Provenance.CODE

    def __init__(
        self,
        student: Taps,
        teacher: Taps,
        task: Task,
        *,
        variational: float = 1.0,
        soft: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__()
        pairs = paired_shapes(student, teacher)
        self.student, self.teacher, self.task = student, Teacher(teacher), task
        self.variational, self.soft, self.temperature = variational, soft, temperature
        self.bounds = nn.ModuleList(
            VariationalGaussian(x[0], t[0]) for x, t in pairs if variational
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `variational/i` of each stage."""
        out, mine = self.student.forward_features(batch.inputs)
        reference, theirs = self.teacher.forward_features(batch.inputs)  # without a gradient
        losses = {"task": self.task.loss(out, batch.targets)}
        if self.soft:
            losses["soft"] = self.soft * self.task.soft_loss(out, reference, self.temperature)
        if self.variational:
            pairs = zip(self.bounds, pooled_pairs(mine, theirs), strict=True)
            for i, (bound, (x, target)) in enumerate(pairs, 1):
                losses[f"variational/{i}"] = self.variational * bound(x, target)
        return StepOutput(out, losses)

    def predictors(self) -> dict[str, nn.Module]:
        """The student alone."""
        return {"student": self.student.network}
