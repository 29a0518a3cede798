from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ..core import METHODS, Batch, ConfigError, Method, Progress, Provenance, StepOutput, Task
from ..taps import Taps

_NEGLIGIBLE, _LOUD = 1e-6, 0.3  # beside a supervised loss of about 1


@METHODS.add("sad")
class SelfAttentionDistillation(Method):
    r"""Match each stage's spatial attention map to that of the next deeper stage.

    Hou et al. 2019, https://arxiv.org/abs/1908.00821, made for lane detection. With the features
    :math:`F_1 … F_T` at the taps,

    .. math::
        L = L_{task} + \beta \sum_{i<T} \overline{\left( A(F_i) - sg\, A(F_{i+1}) \right)^2}
        \qquad A(F) = softmax_{h,w}\left( \uparrow \sum_c F_c^2 \right)

    where the arrow enlarges the deeper map to the size of stage i by bilinear interpolation, and
    the bar is the mean over images and positions. The deeper stage is the target and gets no
    gradient; a public port for lanes lets it have one.

    Mind the size of the term: a softmax over N positions has entries of about 1/N, so the mean
    square is of the order of 1/N², and for maps of 32×32 the lane network's weight of 0.1 adds
    about 1e-8 to the loss. Self-KD-Lib's form for classification, the default here, takes 1000 and
    the mean over the channels instead of the sum; it also enlarges the feature instead of its map,
    where we follow the paper. That weight does not suit small maps: with it a
    `cifar/resnet10_w16`, whose maps are 32×32 to 4×4, ended 1.7 points below plain training (0.9 to
    2.4, 5 seeds, docs/measurements.md), so on images of 32×32 try 10. The unweighted terms are
    logged, and a weighted term below 1e-6 or above 0.3 is reported.

    The lane network's own form is ``attention_weight=0.1, channel_reduction="sum",
    start_fraction=2/3``: there the term starts at step 40000 of 60000.

    Args:
        student: a network with two taps or more: the ends of its stages, no stem.
        task: what the labels mean.
        attention_weight: weight β ≥ 0 of the attention terms; Self-KD-Lib's 1000, too much for
            small maps, see above.
        channel_reduction: over the channels the "mean" of squares (Self-KD-Lib) or their "sum" (the
            paper), whose softmax is sharper with more channels.
        start_fraction: fraction of the run, in [0, 1), before which the attention terms are 0.
            Above 0 the length of the run must be known.
    """

    kind = "self"
    provenance = Provenance.NOTES
    default_taps = "stages"

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        attention_weight: float = 1000.0,
        channel_reduction: Literal["mean", "sum"] = "mean",
        start_fraction: float = 0.0,
    ) -> None:
        super().__init__()
        if len(student.names) < 2:
            raise ConfigError(
                f"sad compares each stage with the next and has {len(student.names)} tap; give "
                "two or more with --taps, `selfdistill taps MODEL` lists them"
            )
        if not 0 <= start_fraction < 1:
            raise ConfigError(
                f"start_fraction={start_fraction:g} is no fraction of a run; give 0 … 0.99"
            )
        self.student, self.task = student, task
        self.attention_weight, self.start_fraction = attention_weight, start_fraction
        self.needs = self.needs._replace(run_length=bool(start_fraction))
        self.channel_reduction = channel_reduction

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, and `attention/i` of each stage but the last."""
        outputs, features = self.student.forward_features(batch.inputs)
        energies = [self._energy(feature) for feature in features.values()]
        weight: Tensor | float = self.attention_weight
        if self.start_fraction:
            weight = weight * (progress.fraction >= self.start_fraction)
        losses = {"task": self.task.loss(outputs, batch.targets)}
        monitors = {}
        for i, (energy, deeper) in enumerate(pairwise(energies), 1):
            distance = attention_distance(energy, deeper.detach())
            losses[f"attention/{i}"] = weight * distance
            monitors[f"attention/{i}"] = distance.detach()
        return StepOutput(outputs, losses, monitors)

    def _energy(self, feature: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1, H, W), in fp32."""
        squares = feature.float().square()
        reduce = squares.sum if self.channel_reduction == "sum" else squares.mean
        return reduce(1, keepdim=True)

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Terms that are negligible beside the supervised loss, or larger than it."""
        diagnosis: dict[str, str] = {}
        for name, value in monitors.items():
            term = self.attention_weight * value
            if not name.startswith("attention/"):
                continue
            if 0 < term < _NEGLIGIBLE:
                diagnosis[name] = f"silent, {term:.0e} of the loss; raise attention_weight"
            elif term > _LOUD:
                diagnosis[name] = f"loud, {term:.1f} of the loss; lower attention_weight"
        return diagnosis


def attention_distance(energy: Tensor, deeper: Tensor) -> Tensor:
    """The mean squared difference of two attention maps, softmaxes over the positions.

    Args:
        energy: (B, 1, H, W).
        deeper: (B, 1, h, w), interpolated to the size of the other first.
    """
    size = energy.shape[-2:]
    if deeper.shape[-2:] != size:
        deeper = F.interpolate(deeper, size=size, mode="bilinear", align_corners=False)
    return F.mse_loss(energy.flatten(1).softmax(1), deeper.flatten(1).softmax(1))
