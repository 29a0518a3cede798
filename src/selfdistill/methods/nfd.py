from typing import Literal

from torch import Tensor, nn

from ..core import METHODS, Batch, ConfigError, Progress, Provenance, StepOutput, Task
from ..functional.attention import pooled_to
from ..modules.feature_distillation import FeatureDistillation
from ..modules.pairs import taps_by_number
from ..taps import Taps, Teacher

_DIMENSIONS = {"space": (2, 3), "batch": (0, 2, 3), "sample": (1, 2, 3), "channel": (1,)}


@METHODS.add("nfd")
class NormalizedFeatures(FeatureDistillation):
    r"""Match a feature of the teacher after normalizing both to zero mean and unit variance.

    Liu et al. 2022, https://arxiv.org/abs/2207.05256, made for semantic segmentation. **A
    reconstruction from the abstract**, which says that the magnitude of a feature need not be
    copied and that both features are normalized before their distance is taken:

    .. math:: L = L_{task} + \lambda \, \overline{(N(p(x)) - N(t))^2} \qquad
        N(f) = \frac{f - mean(f)}{std(f) + 10^{-5}}

    where x and t are features of the student and of the teacher, p a 1×1 convolution if their
    channels differ, and the bar is the mean over all elements. With the default, mean and standard
    deviation are those of each channel of each image over its positions, and the term is twice one
    minus the correlation, so between 0 and 4. Not known to us are the dimensions that the paper
    normalizes over, the weight, the layer, and whether p has a norm; all are chosen here.

    Args:
        student: the network.
        teacher: a trained network.
        task: what the labels mean.
        feature_weight: weight λ ≥ 0 of the term; chosen here. 0 leaves it out.
        normalize_over: the elements that share one mean and standard deviation: "space" those of a
            channel of an image, "batch" those of a channel, "sample" those of an image, "channel"
            those of a position of an image; chosen here.
        tap: which tap of both networks, counted from the deepest, 1; none takes the deepest whose
            features have more than one position. Chosen here.
        soft_weight: weight ≥ 0 of a soft loss towards the teacher's output; none here.
        temperature: τ > 0 of the soft loss.
    """

    provenance = Provenance.ABSTRACT

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        feature_weight: float = 1.0,
        normalize_over: Literal["space", "batch", "sample", "channel"] = "space",
        tap: int | None = None,
        soft_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        if tap is None:
            depths = range(1, min(len(student.names), len(teacher.names)) + 1)
            tap = next((t for t in depths if _num_positions(t, student, teacher) > 1), 1)
        self.student_tap, self.teacher_tap = taps_by_number(
            student, teacher, tap, from_deepest=True
        )
        self.feature_weight, self.dimensions = feature_weight, _DIMENSIONS[normalize_over]
        if normalize_over == "space" and _num_positions(tap, student, teacher) == 1:
            raise ConfigError(
                f"the feature at tap {tap} has a single cell, whose mean over space is the cell "
                f"itself; take an earlier one (tap={tap + 1}), normalize_over='batch' or larger "
                "images"
            )
        in_channels = student.shapes[self.student_tap][0]
        out_channels = teacher.shapes[self.teacher_tap][0]
        self.projection: nn.Module = nn.Identity()
        if feature_weight and in_channels != out_channels:
            # normalization over one channel alone would cancel its bias
            bias = normalize_over in ("sample", "channel")
            self.projection = nn.Conv2d(in_channels, out_channels, 1, bias=bias)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `feature`."""
        outputs, losses, student_features, teacher_features = self.paired_forward(batch)
        if self.feature_weight:
            x = self.projection(student_features[self.student_tap])
            t = teacher_features[self.teacher_tap]
            x, t = (normalized(z, self.dimensions) for z in (pooled_to(x, t), pooled_to(t, x)))
            losses["feature"] = self.feature_weight * (x - t).square().mean()
        return StepOutput(outputs, losses)


def _num_positions(tap: int, *networks: Taps | Teacher) -> int:
    """The fewest positions H·W of the networks' features at this tap, counted from the deepest."""
    shapes = (network.shapes[network.names[-tap]] for network in networks)
    return min(height * width for _, height, width in shapes)


def normalized(x: Tensor, dimensions: tuple[int, ...]) -> Tensor:
    """(B, C, H, W) with mean 0 and standard deviation 1 over some dimensions, in fp32."""
    x = x.float()
    centered = x - x.mean(dimensions, keepdim=True)
    # a small number inside the root, too: a constant channel would have no gradient but nan
    deviation = (centered.square().mean(dimensions, keepdim=True) + 1e-12).sqrt()
    return centered / (deviation + 1e-5)
