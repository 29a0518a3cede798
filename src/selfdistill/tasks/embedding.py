"""Embeddings: a vector of each image, like that which a teacher gives."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import ConfigError, Task
from .output_form import require_tensor

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Embedding(Task):
    """Embeddings (B, D) of images without labels.

    A target is what a teacher gives for the image, (B, D); in training a method asks its teacher,
    so that batches have none. Embeddings are compared by direction alone.

    Args:
        classes: names of the D dimensions.
        example: two images as the network takes them, (2, C, H, W).
        label_smoothing: there are no labels to smooth.
    """

    primary_metric = "similarity"
    name = "embedding"
    embeddings = True
    output_names = ("embedding",)

    def __init__(
        self, classes: Sequence[str], example: Tensor, *, label_smoothing: float = 0.0
    ) -> None:
        self.classes, self.example = list(classes), example

    def head(self, channels: int) -> nn.Module:
        """Global average pooling and one linear layer."""
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(self.classes))
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """One minus the mean cosine similarity of embeddings (B, D)."""
        return 1 - F.cosine_similarity(outputs.float(), targets.float()).mean()

    def soft_loss(
        self, outputs: Tensor, reference: Tensor, temperature: float, *, mask: Tensor | None = None
    ) -> Tensor:
        """As `loss`: the direction of an embedding has no temperature."""
        return self.loss(outputs, reference)

    def check_targets(self, targets: Any, batch_size: int, *, values: bool = True) -> None:
        """None, or embeddings (B, D) of a teacher."""
        shape = (batch_size, len(self.classes))
        if targets is None or (isinstance(targets, Tensor) and tuple(targets.shape) == shape):
            return
        given = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
        raise ConfigError(
            f"images of task 'embedding' have no labels, so give None, or embeddings {shape}; "
            f"these are {given}"
        )

    def metric(self) -> "MetricCollection":
        """Mean cosine similarity."""
        from torchmetrics import MetricCollection

        from .similarity import MeanCosineSimilarity

        return MetricCollection({"similarity": MeanCosineSimilarity()})

    def check_output(self, network: nn.Module, output: Any) -> None:
        """The network must map (B, C, H, W) to (B, D)."""
        expected = (len(self.example), len(self.classes))
        require_tensor(network, output)
        if tuple(output.shape) != expected:
            raise ConfigError(
                f"{type(network).__name__} gives {tuple(output.shape)} for {expected[0]} images, "
                f"and an embedding like the teacher's is {expected}; give a classifier of images "
                f"with num_classes={expected[1]}"
            )


def standardized(embeddings: Tensor) -> Tensor:
    """(N, D) with mean 0 and deviation 1 in each dimension; one that is constant becomes 0."""
    deviation, mean = torch.std_mean(embeddings.float(), 0, correction=0)
    return (embeddings.float() - mean) / deviation.clamp(min=1e-6)
