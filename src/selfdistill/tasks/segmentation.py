"""One class a pixel."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)

from ..core import IGNORE, ConfigError, DataError, Task
from ..functional.divergence import kl_divergence
from ..stages import probing


class Segmentation(Task):
    """Cross-entropy over the pixels of K ≥ 2 classes.

    Outputs are scores (B, K, h, w) at any resolution: they are enlarged bilinearly to that of the
    targets, as is done at inference. Targets are (B, H, W) int64.

    Args:
        classes: their names, in the order of their labels.
        example: two images as the network takes them, (2, C, H, W).
        label_smoothing: of the supervised loss, in [0, 1).

    Raises:
        DataError: fewer than two classes.
    """

    headline = "miou"
    name = "segmentation"
    scores = True
    places = True

    def __init__(
        self, classes: Sequence[str], example: Tensor, *, label_smoothing: float = 0.0
    ) -> None:
        if len(classes) < 2:
            raise DataError(f"segmentation needs two classes or more; there is {len(classes)}")
        self.classes, self.example, self.label_smoothing = list(classes), example, label_smoothing

    def head(self, channels: int) -> nn.Module:
        """A 3×3 convolution to a quarter of the channels, BatchNorm, ReLU, a 1×1 convolution."""
        width = max(channels // 4, len(self.classes))
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, len(self.classes), 1),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the pixels that count; 0 where none does."""
        summed = F.cross_entropy(
            resized(outputs, targets.shape[-2:]),
            targets,
            ignore_index=IGNORE,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return summed / (targets != IGNORE).sum().clamp(min=1)

    def soft_loss(self, outputs: Tensor, reference: Tensor, temperature: float) -> Tensor:
        """τ²-scaled KL divergence, averaged over the pixels of the reference."""
        return kl_divergence(resized(outputs, reference.shape[-2:]), reference, temperature)

    def metric(self) -> MetricCollection:
        """Mean intersection over union (of the classes that occur), and pixel accuracy."""
        k = len(self.classes)
        metrics: dict[str, Metric | MetricCollection] = {
            "miou": _Jaccard(k, ignore_index=IGNORE),
            "accuracy": _Accuracy(k, average="micro", ignore_index=IGNORE),
        }
        return MetricCollection(metrics, compute_groups=False)

    def details(self) -> dict[str, Any]:
        """The confusion matrix of pixels: rows are true classes, columns predicted ones."""
        return {"confusion": _Confusion(len(self.classes), ignore_index=IGNORE)}

    def check(self, network: nn.Module) -> None:
        """The network must map (B, C, H, W) to (B, K, h, w)."""
        device = next((p.device for p in network.parameters()), self.example.device)
        with probing(network):
            out = network(self.example.to(device))
        want = (len(self.example), len(self.classes))
        if not isinstance(out, Tensor) or out.dim() != 4 or tuple(out.shape[:2]) != want:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ConfigError(
                f"{type(network).__name__} gives {got} for {want[0]} images, but segmentation into "
                f"{want[1]} classes asks for {(*want, 'h', 'w')}; `selfdistill models` lists "
                "networks for it"
            )


def resized(scores: Tensor, size: Sequence[int]) -> Tensor:
    """(B, K, h, w) -> (B, K, *size) in fp32, bilinear."""
    scores = scores.float()
    if tuple(scores.shape[-2:]) == tuple(size):
        return scores
    return F.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)


class _Pixels:
    """Lets a metric of classes take scores of another resolution than the targets'."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Scores (B, K, h, w) and targets (B, H, W)."""
        super().update(resized(preds, target.shape[-2:]).argmax(1), target)  # type: ignore[misc]


class _Jaccard(_Pixels, MulticlassJaccardIndex):
    pass


class _Accuracy(_Pixels, MulticlassAccuracy):
    pass


class _Confusion(_Pixels, MulticlassConfusionMatrix):
    pass
