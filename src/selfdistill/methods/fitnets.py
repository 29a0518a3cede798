from torch import Tensor, nn

from ..core import METHODS, Batch, ConfigError, Method, Progress, Provenance, StepOutput, Task
from ..functional.attention import pooled_to
from ..taps import Taps, Teacher


@METHODS.add("fitnets")
class FitNets(Method):
    r"""Predict a middle feature of a frozen teacher from one of the student's.

    Romero et al. 2015, https://arxiv.org/abs/1412.6550, Eq. 3, in one stage:

    .. math:: L = L_{task} + \beta \, \overline{(r(x) - t)^2}

    where x and t are the features at a tap of the student and of the teacher, the bar is the mean
    over all their elements and r a regressor: one convolution that also brings x to the size of t,
    batch norm and ReLU.

    The paper trains in two stages, first the student up to x alone with half the sum of squares,
    then all of it with soft labels, and drops r in between. We follow the CRD benchmark
    (https://arxiv.org/abs/1910.10699), whose numbers others quote: one stage, β = 100, the second
    of three stages. It is known to fall short of `soft` labels there. Our convolution has no bias,
    which batch norm would take away, and where the teacher's feature is larger, but not twice as
    large, it is pooled to the student's size; the benchmark has no form for that. Take taps of
    like sizes: from a much larger map the benchmark's regressor needs a much larger kernel.

    The ReLU is right for a teacher whose taps end in one. Where they do not (pre-activation
    networks, transformers), the feature has negative values that r cannot reach: set relu to false,
    which the benchmark does not.

    Args:
        student: the network.
        teacher: a trained network.
        task: what the labels mean.
        hint: weight β of the hint; the benchmark's 100. 0 leaves it out.
        tap: which tap of both networks, counted from the deepest, 1; the benchmark's is 2.
        relu: whether the regressor ends in a ReLU, as in the benchmark.
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
        hint: float = 100.0,
        tap: int = 2,
        relu: bool = True,
        soft: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__()
        fewest = min(len(student.names), len(teacher.names))
        if not 1 <= tap <= fewest:
            raise ConfigError(
                f"tap={tap} is counted from the deepest, and both networks have taps up to "
                f"{fewest}; give 1 … {fewest}, or name more with --taps and --teacher-taps"
            )
        self.guided, self.hinting = student.names[-tap], teacher.names[-tap]
        source, target = student.shapes[self.guided], teacher.shapes[self.hinting]
        self.student, self.teacher, self.task = student, Teacher(teacher), task
        self.hint, self.soft, self.temperature = hint, soft, temperature
        self.regressor = regressor(source, target, relu=relu) if hint else None

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `hint`."""
        out, mine = self.student.forward_features(batch.inputs)
        reference, theirs = self.teacher.forward_features(batch.inputs)  # without a gradient
        losses = {"task": self.task.loss(out, batch.targets)}
        if self.soft:
            losses["soft"] = self.soft * self.task.soft_loss(out, reference, self.temperature)
        if self.regressor is not None:
            guess, target = self.regressor(mine[self.guided]), theirs[self.hinting]
            losses["hint"] = self.hint * mean_square(guess, target)
        return StepOutput(out, losses)

    def predictors(self) -> dict[str, nn.Module]:
        """The student alone."""
        return {"student": self.student.network}


def regressor(
    source: tuple[int, int, int], target: tuple[int, int, int], *, relu: bool
) -> nn.Sequential:
    """A convolution from one shape (C, H, W) to another, batch norm and maybe ReLU.

    From twice the target's size a stride of 2, from half of it a transposed one, else a kernel that
    leaves just the target's size. Where a side of the source is smaller still, 1×1.
    """
    channels, height, width = source
    wanted, high, wide = target
    convolution: nn.Module
    if (height, width) == (2 * high, 2 * wide):
        convolution = nn.Conv2d(channels, wanted, 3, 2, 1, bias=False)
    elif (2 * height, 2 * width) == (high, wide):
        convolution = nn.ConvTranspose2d(channels, wanted, 4, 2, 1, bias=False)
    else:
        larger = height >= high and width >= wide
        kernel = (1 + height - high, 1 + width - wide) if larger else (1, 1)
        convolution = nn.Conv2d(channels, wanted, kernel, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(wanted), *([nn.ReLU()] if relu else []))


def mean_square(guess: Tensor, target: Tensor) -> Tensor:
    """The mean of squared differences in fp32, the larger map pooled to the size of the other."""
    gap = pooled_to(guess, target).float() - pooled_to(target, guess).float()
    return gap.square().mean()
