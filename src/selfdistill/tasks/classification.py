"""Classification: one class per image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import ConfigError, DataError, Task
from ..functional.divergence import kl_divergence
from .output_form import require_tensor

# torchmetrics is imported where it is used: it takes seconds, and what is refused needs none of it
if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection


class Classification(Task):
    """Cross-entropy over K ≥ 2 classes.

    Args:
        classes: their names, in the order of their labels.
        example: two images as the network takes them, (2, C, H, W).
        label_smoothing: of the supervised loss, in [0, 1).

    Raises:
        DataError: fewer than two classes.
    """

    primary_metric = "accuracy"
    name = "classification"
    image_labels = True
    class_scores = True

    def __init__(
        self, classes: Sequence[str], example: Tensor, *, label_smoothing: float = 0.0
    ) -> None:
        if len(classes) < 2:
            raise DataError(f"classification needs two classes or more; there is {len(classes)}")
        self.classes, self.example, self.label_smoothing = list(classes), example, label_smoothing

    def head(self, channels: int) -> nn.Module:
        """Global average pooling and one linear layer."""
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(self.classes))
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits (B, K) with labels (B,)."""
        return F.cross_entropy(outputs.float(), targets, label_smoothing=self.label_smoothing)

    def check_targets(self, targets: Any, batch_size: int, *, values: bool = True) -> None:
        """Labels (B,) of 0 … K − 1, or the mixtures (B, K) of mixup."""
        k = len(self.classes)
        wanted = f"labels are {batch_size} integers of 0 … {k - 1}, one for each image"
        if not isinstance(targets, Tensor):
            raise ConfigError(f"{wanted}, in a tensor, not {type(targets).__name__}")
        if targets.is_floating_point() and tuple(targets.shape) == (batch_size, k):
            return
        shape = tuple(targets.shape)
        if targets.dtype != torch.int64 or shape != (batch_size,):
            raise ConfigError(
                f"{wanted} (int64), or mixtures of ({batch_size}, {k}); these are {shape}, "
                f"{str(targets.dtype).removeprefix('torch.')}"
            )
        if not values or not batch_size:
            return
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= k:
            raise ConfigError(f"{wanted}; these go from {low} to {high} and there are {k} classes")

    def soft_loss(
        self, outputs: Tensor, reference: Tensor, temperature: float, *, mask: Tensor | None = None
    ) -> Tensor:
        """τ²-scaled KL divergence from the reference's softened distribution."""
        return kl_divergence(outputs, reference, temperature)

    def hard_targets(self, targets: Tensor) -> Tensor:
        """Labels (B,), of mixtures (B, K) the class of the largest part."""
        return targets.argmax(1) if targets.is_floating_point() else targets

    def metric(self) -> "MetricCollection":
        """Top-1 accuracy, and top-5 where there are more than five classes."""
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy

        k = len(self.classes)
        metrics: dict[str, Metric | MetricCollection] = {
            "accuracy": MulticlassAccuracy(k, average="micro")
        }
        if k > 5:
            metrics["top5"] = MulticlassAccuracy(k, average="micro", top_k=5)
        return MetricCollection(metrics, compute_groups=False)

    def same_class_mask(self, targets: Tensor) -> Tensor:
        """Whether two images are of one class, (B, B)."""
        return targets[:, None] == targets

    def matrix_metrics(self) -> "dict[str, Metric]":
        """Confusion matrix: rows are true classes, columns predicted ones."""
        from torchmetrics.classification import MulticlassConfusionMatrix

        return {"confusion": MulticlassConfusionMatrix(len(self.classes))}

    def calibration_metric(self) -> "Metric":
        """Reliability table of the predicted class."""
        from .reliability import ReliabilityTable

        return ReliabilityTable()

    def correct_mask(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Whether the predicted class is the true one, (B,)."""
        return outputs.argmax(1) == targets

    def confidence(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The largest probability of each image and its class."""
        probabilities, labels = outputs.float().softmax(1).max(1)
        return probabilities, labels

    def check_output(self, network: nn.Module, output: Any) -> None:
        """The network must map (B, C, H, W) to (B, K)."""
        expected = (len(self.example), len(self.classes))
        require_tensor(network, output)
        if tuple(output.shape) != expected:
            name = type(network).__name__
            raise ConfigError(
                f"{name} gives {tuple(output.shape)} for {expected[0]} images, but "
                f"{expected[1]} classes ask for {expected}; build it with num_classes={expected[1]}"
            )
