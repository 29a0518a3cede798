from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..core import METHODS, Batch, ConfigError, Method, Progress, Provenance, StepOutput, Task
from ..taps import Taps

_SILENT = 1e-6  # of a loss, next to a supervised one of about 1


@METHODS.add("sad")
class SelfAttentionDistillation(Method):
    r"""Let every stage look where the next deeper one looks.

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
    where we follow the paper. That weight suits maps of 32×32 to 8×8; at 4×4 the term can outweigh
    the supervised loss. The unweighted terms are logged, and a weight that makes less than 1e-6 or
    more than 1 of them is reported.

    The lane network's own form is ``attention=0.1, energy="sum", start=2/3``: there the term joins
    at step 40000 of 60000.

    Args:
        student: a network with two taps or more.
        task: what the labels mean.
        attention: weight β of the attention terms; Self-KD-Lib's 1000.
        energy: over the channels the "mean" of squares (Self-KD-Lib) or their "sum" (the paper),
            whose softmax is the sharper the more channels there are.
        start: part of the run, in [0, 1), that is over before the attention terms join in. Above 0
            the length of the run must be known.
    """

    kind = "self"
    provenance = Provenance.NOTES

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        attention: float = 1000.0,
        energy: Literal["mean", "sum"] = "mean",
        start: float = 0.0,
    ) -> None:
        super().__init__()
        if len(student.names) < 2:
            raise ConfigError(
                f"sad compares each stage with the next and has {len(student.names)} tap; give "
                "two or more with --taps, `selfdistill taps MODEL` lists them"
            )
        if not 0 <= start < 1:
            raise ConfigError(f"start={start:g} is no part of a run; give 0 … 0.99")
        self.student, self.task = student, task
        self.attention, self.energy, self.start = attention, energy, start

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, and `attention/i` of each stage but the last."""
        out, features = self.student.forward_features(batch.inputs)
        energies = [self._energy(feature) for feature in features.values()]
        weight = self.attention * (progress.fraction >= self.start)  # 0, and then the weight
        losses = {"task": self.task.loss(out, batch.targets)}
        monitors = {}
        for i, (own, deeper) in enumerate(pairwise(energies), 1):
            gap = attention_gap(own, deeper.detach())
            losses[f"attention/{i}"] = weight * gap
            monitors[f"attention/{i}"] = gap.detach()
        return StepOutput(out, losses, monitors)

    def _energy(self, feature: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1, H, W), in fp32."""
        square = feature.float().square()
        return square.sum(1, keepdim=True) if self.energy == "sum" else square.mean(1, keepdim=True)

    def predictors(self) -> dict[str, nn.Module]:
        """The student alone."""
        return {"student": self.student.network}

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Terms that are too small to teach anything, or larger than the supervised loss."""
        terms = {n: self.attention * v for n, v in monitors.items() if n.startswith("attention/")}
        silent = {n: v for n, v in terms.items() if 0 < v < _SILENT}
        loud = {n: v for n, v in terms.items() if v > 1}
        return {
            n: f"is silent: it adds {v:.0e} to the loss; raise attention" for n, v in silent.items()
        } | {n: f"is loud: it adds {v:.1f} to the loss; lower attention" for n, v in loud.items()}


def attention_gap(own: Tensor, deeper: Tensor) -> Tensor:
    """The mean squared difference of two attention maps, softmaxes over the positions.

    Args:
        own: (B, 1, H, W).
        deeper: (B, 1, h, w), brought to the size of the other first.
    """
    if deeper.shape[-2:] != own.shape[-2:]:
        deeper = F.interpolate(deeper, size=own.shape[-2:], mode="bilinear", align_corners=False)
    return F.mse_loss(own.flatten(1).softmax(1), deeper.flatten(1).softmax(1))
