from torch import nn

from ..core import METHODS, Batch, Method, Progress, Provenance, StepOutput, Task
from ..functional.kernel import channel_discrepancy
from ..modules.pairs import check_positions, paired_shapes, pooled_pairs
from ..taps import Taps, Teacher


@METHODS.add("nst")
class NeuronSelectivityTransfer(Method):
    r"""Have channels that respond where a frozen teacher's channels respond.

    Huang and Wang 2017, https://arxiv.org/abs/1707.01219, Eq. 8, with the polynomial kernel
    :math:`k(x, y) = (x^\top y)^2`. The channels of a feature, each a map over the positions scaled
    to unit length, are a sample of a distribution; the squared maximum mean discrepancy between
    student's and teacher's is minimized:

    .. math:: L = L_{task} + \beta \sum_i \left[ \overline{k(x_c, x_d)} + \overline{k(t_c, t_d)}
        - 2 \overline{k(x_c, t_d)} \right]_i

    where bars are means over all pairs of channels and over images. The numbers of channels may
    differ and nothing is learned beside the student.

    The paper takes the last feature alone and, as recalled, β/2 with β = 50; the CRD benchmark
    (https://arxiv.org/abs/1910.10699) takes the end of every stage and β = 50, pools the larger of
    two features to the size of the smaller, and is what we follow. The term of the teacher with
    itself is a constant; it is kept, so that the value is 0 or more.

    Args:
        student: the network.
        teacher: a trained network with as many taps as the student.
        task: what the labels mean.
        selectivity: weight β of the discrepancies; the benchmark's 50. 0 leaves them out.
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
        selectivity: float = 50.0,
        soft: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__()
        check_positions(paired_shapes(student, teacher))
        self.student, self.teacher, self.task = student, Teacher(teacher), task
        self.selectivity, self.soft, self.temperature = selectivity, soft, temperature

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `selectivity/i` of each stage."""
        out, mine = self.student.forward_features(batch.inputs)
        reference, theirs = self.teacher.forward_features(batch.inputs)  # without a gradient
        losses = {"task": self.task.loss(out, batch.targets)}
        if self.soft:
            losses["soft"] = self.soft * self.task.soft_loss(out, reference, self.temperature)
        if self.selectivity:
            for i, (x, target) in enumerate(pooled_pairs(mine, theirs), 1):
                losses[f"selectivity/{i}"] = self.selectivity * channel_discrepancy(x, target)
        return StepOutput(out, losses)

    def predictors(self) -> dict[str, nn.Module]:
        """The student alone."""
        return {"student": self.student.network}
