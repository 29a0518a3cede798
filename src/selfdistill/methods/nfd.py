from typing import Literal

from torch import Tensor, nn

from ..core import METHODS, Batch, ConfigError, Method, Progress, Provenance, StepOutput, Task
from ..functional.attention import pooled_to
from ..taps import Taps, Teacher

_DIMENSIONS = {"space": (2, 3), "batch": (0, 2, 3), "sample": (1, 2, 3), "channel": (1,)}


@METHODS.add("nfd")
class NormalizedFeatures(Method):
    r"""Imitate a frozen teacher's feature up to its magnitude.

    Liu et al. 2022, https://arxiv.org/abs/2207.05256, made for semantic segmentation. **A
    reconstruction from the abstract**, which says that the magnitude of a feature need not be
    copied and that both features are normalized before their distance is taken:

    .. math:: L = L_{task} + \lambda \, \overline{(N(p(x)) - N(t))^2} \qquad
        N(f) = \frac{f - mean(f)}{std(f) + 10^{-5}}

    where x and t are features of the student and of the teacher, p a 1×1 convolution if their
    channels differ, and the bar is the mean over all elements. With the default, mean and standard
    deviation are those of each channel of each image over its places, and the term is twice one
    minus the correlation, so between 0 and 4. Not known to us are the dimensions that the paper
    normalizes over, the weight, the layer, and whether p has a norm; all are chosen here.

    Args:
        student: the network.
        teacher: a trained network.
        task: what the labels mean.
        feature: weight λ ≥ 0 of the term; chosen here.
        over: what mean and standard deviation are taken over: "space" each channel of each image,
            "batch" each channel, "sample" each image, "channel" each place; chosen here.
        tap: which tap of both networks, counted from the deepest, 1; none takes the deepest whose
            features have more than one cell. Chosen here.
        soft: weight of a soft loss towards the teacher's output; none here.
        temperature: of the soft loss.
    """

    kind = "offline"
    provenance = Provenance.ABSTRACT

    def __init__(
        self,
        student: Taps,
        teacher: Taps,
        task: Task,
        *,
        feature: float = 1.0,
        over: Literal["space", "batch", "sample", "channel"] = "space",
        tap: int | None = None,
        soft: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__()
        fewest = min(len(student.names), len(teacher.names))
        if tap is None:
            seen = (t for t in range(1, fewest + 1) if _cells(t, student, teacher) > 1)
            tap = next(seen, 1)
        if not 1 <= tap <= fewest:
            raise ConfigError(
                f"tap={tap} is counted from the deepest, and both networks have taps up to "
                f"{fewest}; give 1 … {fewest}, or name more with --taps and --teacher-taps"
            )
        self.guided, self.guiding = student.names[-tap], teacher.names[-tap]
        own, wanted = student.shapes[self.guided][0], teacher.shapes[self.guiding][0]
        self.student, self.teacher, self.task = student, Teacher(teacher), task
        self.feature, self.soft, self.temperature = feature, soft, temperature
        self.over = _DIMENSIONS[over]
        if over == "space" and _cells(tap, student, teacher) == 1:
            raise ConfigError(
                f"the feature at tap {tap} has a single cell, whose mean over space is all there "
                f"is; take an earlier one (tap={tap + 1}), over='batch' or larger images"
            )
        self.projection: nn.Module = nn.Identity()
        if feature and own != wanted:
            # a shift of a whole channel would be taken off again
            self.projection = nn.Conv2d(own, wanted, 1, bias=over in ("sample", "channel"))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `feature`."""
        out, mine = self.student.forward_features(batch.inputs)
        reference, theirs = self.teacher.forward_features(batch.inputs)  # without a gradient
        losses = {"task": self.task.loss(out, batch.targets)}
        if self.soft:
            losses["soft"] = self.soft * self.task.soft_loss(out, reference, self.temperature)
        if self.feature:
            x, t = self.projection(mine[self.guided]), theirs[self.guiding]
            gap = normalized(pooled_to(x, t), self.over) - normalized(pooled_to(t, x), self.over)
            losses["feature"] = self.feature * gap.square().mean()
        return StepOutput(out, losses)

    def predictors(self) -> dict[str, nn.Module]:
        """The student alone."""
        return {"student": self.student.network}


def _cells(tap: int, *networks: Taps) -> int:
    """The fewest places that a feature has at this tap, counted from the deepest."""
    shapes = (network.shapes[network.names[-tap]] for network in networks)
    return min(height * width for _, height, width in shapes)


def normalized(x: Tensor, over: tuple[int, ...]) -> Tensor:
    """(B, C, H, W) with mean 0 and standard deviation 1 over some dimensions, in fp32."""
    x = x.float()
    centered = x - x.mean(over, keepdim=True)
    # a small number inside the root, too: a constant channel would have no gradient but nan
    deviation = (centered.square().mean(over, keepdim=True) + 1e-12).sqrt()
    return centered / (deviation + 1e-5)
