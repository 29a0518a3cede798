from collections.abc import Mapping

from torch import Tensor, nn

from ..core import METHODS, Batch, Progress, Provenance, StepOutput, Task
from ..functional.attention import pooled_to
from ..functional.rectification import negative_share
from ..modules.feature_distillation import UNREACHABLE, FeatureDistillation, unreachable_warning
from ..modules.pairs import Shape, taps_by_number
from ..taps import Taps, Teacher


@METHODS.add("fitnets")
class FitNets(FeatureDistillation):
    r"""Regress an intermediate feature (hint) of the teacher from one of the student's.

    Romero et al. 2015, https://arxiv.org/abs/1412.6550, Eq. 3, in one stage:

    .. math:: L = L_{task} + \beta \, \overline{(r(x) - t)^2}

    where x and t are the features at a tap of the student and of the teacher, the bar is the mean
    over all their elements and r a regressor: one convolution that also brings x to the size of t,
    batch norm and ReLU.

    The paper trains in two stages, first the student up to x alone with half the sum of squares,
    then all of it with soft labels, and drops r in between. We follow the CRD benchmark
    (https://arxiv.org/abs/1910.10699), whose numbers others quote: one stage, β = 100, the second
    stage that it counts. It is known to fall short of `soft` labels there. Our convolution has no
    bias, which batch norm would take away, and where the teacher's feature is larger, but not twice
    as large, it is pooled to the student's size; the benchmark has no form for that. Take taps of
    like sizes: from a much larger map the benchmark's regressor needs a much larger kernel.

    The ReLU is right for a teacher whose taps end in one. Where they do not (pre-activation
    networks, transformers), the feature has negative values that r cannot reach: set
    `regressor_relu` to false, which the benchmark does not. Their share of the teacher's mean
    square is logged as `unreachable`, and more than a hundredth is reported.

    Args:
        student: the network.
        teacher: a trained network.
        task: what the labels mean.
        hint_weight: weight β ≥ 0 of the hint term; the benchmark's 100. 0 leaves it out.
        tap: which tap of both networks, counted from the shallowest, 1; the benchmark's is 2, the
            end of the second of the stages that it counts.
        regressor_relu: whether the regressor ends in a ReLU, as in the benchmark.
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
        hint_weight: float = 100.0,
        tap: int = 2,
        regressor_relu: bool = True,
        soft_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        names = taps_by_number(student, teacher, tap, from_deepest=False)
        self.student_tap, self.teacher_tap = names
        self.hint_weight, self.regressor_relu = hint_weight, regressor_relu
        source, target = student.shapes[self.student_tap], teacher.shapes[self.teacher_tap]
        self.regressor = build_regressor(source, target, regressor_relu) if hint_weight else None

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `hint`."""
        outputs, losses, student_features, teacher_features = self.paired_forward(batch)
        if self.regressor is not None:
            prediction = self.regressor(student_features[self.student_tap])
            target = teacher_features[self.teacher_tap]
            losses["hint"] = self.hint_weight * mean_squared_error(prediction, target)
            if self.regressor_relu:
                return StepOutput(outputs, losses, {UNREACHABLE: negative_share(target)})
        return StepOutput(outputs, losses)

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """A teacher's feature that the regressor's ReLU cannot reach."""
        return unreachable_warning(monitors, self.teacher_tap, "regressor")


def build_regressor(source: Shape, target: Shape, relu: bool) -> nn.Sequential:
    """A convolution from one shape (C, H, W) to another, batch norm and, if asked for, ReLU.

    From twice the target's size a stride of 2, from half of it a transposed convolution, else a
    kernel that leaves exactly the target's size. Where a side of the source is smaller still, 1×1.
    """
    in_channels, in_height, in_width = source
    out_channels, height, width = target
    convolution: nn.Module
    if (in_height, in_width) == (2 * height, 2 * width):
        convolution = nn.Conv2d(in_channels, out_channels, 3, 2, 1, bias=False)
    elif (2 * in_height, 2 * in_width) == (height, width):
        convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=False)
    else:
        larger = in_height >= height and in_width >= width
        kernel = (1 + in_height - height, 1 + in_width - width) if larger else (1, 1)
        convolution = nn.Conv2d(in_channels, out_channels, kernel, bias=False)
    activation = [nn.ReLU()] if relu else []
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), *activation)


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference in fp32, the larger map pooled to the size of the other."""
    difference = pooled_to(prediction, target).float() - pooled_to(target, prediction).float()
    return difference.square().mean()
