"""Metrics of dense scores, resized to the resolution of the targets."""

from torch import Tensor
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)

from ..functional.places import resize_scores


class _PixelMetric:
    """Resizes scores to the resolution of the targets for a metric of classes."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Scores (B, K, h, w) and targets (B, H, W)."""
        super().update(resize_scores(preds, target.shape[-2:]).argmax(1), target)  # type: ignore[misc]


class PixelJaccardIndex(_PixelMetric, MulticlassJaccardIndex):
    """Intersection over union of pixels."""


class PixelAccuracy(_PixelMetric, MulticlassAccuracy):
    """Accuracy of pixels."""


class PixelConfusionMatrix(_PixelMetric, MulticlassConfusionMatrix):
    """Confusion matrix of pixels."""


class PixelClassMetrics(PixelConfusionMatrix):
    """Metrics of each class from the confusion matrix."""

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """{"iou": (K,), "accuracy": (K,), "pixels": (K,)}; nan where a denominator is 0."""
        counts = super().compute()  # (K, K), rows are true
        hits, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        return {"iou": hits / (true + predicted - hits), "accuracy": hits / true, "pixels": true}
