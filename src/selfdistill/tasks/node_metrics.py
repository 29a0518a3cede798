"""Metrics of the nodes whose labels are known."""

from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MultilabelF1Score

from .nodes import UNLABELED


class NodeAccuracy(MulticlassAccuracy):
    """Accuracy of nodes."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Scores (N, K) and labels (N,); negative ones do not count."""
        super().update(preds, target.clamp(min=UNLABELED))


class NodeMicroF1(MultilabelF1Score):
    """F1 of the labels of nodes."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Scores (N, K) and labels (N, K); negative ones do not count."""
        # it takes scores for probabilities where all happen to lie between 0 and 1
        super().update(preds.float().sigmoid(), target.clamp(min=UNLABELED).long())
