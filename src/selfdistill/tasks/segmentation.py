"""Semantic segmentation: one class per pixel."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import IGNORE, ConfigError, DataError, Task
from ..functional.divergence import kl_divergence, mask_weights
from ..functional.places import resize_scores
from .colors import colors
from .output_form import require_tensor

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

_OPACITY = 0.6  # of a color over the image
_GAP = 4  # pixels between target and prediction


class Segmentation(Task):
    """Cross-entropy over the pixels of K ≥ 2 classes.

    Outputs are scores (B, K, h, w) at any resolution: they are resized bilinearly to that of the
    targets, as at inference. Targets are (B, H, W) int64.

    Args:
        classes: their names, in the order of their labels.
        example: two images as the network takes them, (2, C, H, W).
        label_smoothing: of the supervised loss, in [0, 1).

    Raises:
        DataError: fewer than two classes.
    """

    primary_metric = "miou"
    name = "segmentation"
    class_scores = True
    dense_scores = True

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
        """Mean cross-entropy over valid pixels; 0 without any."""
        summed = F.cross_entropy(
            resize_scores(outputs, targets.shape[-2:]),
            targets,
            ignore_index=IGNORE,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return summed / self.valid_mask(targets).sum().clamp(min=1)

    def check_targets(self, targets: Any, batch_size: int, *, values: bool = True) -> None:
        """Masks (B, H, W) of 0 … K − 1 and the void label."""
        k = len(self.classes)
        wanted = (
            f"masks of {k} classes are ({batch_size}, height, width) integers (int64) of "
            f"0 … {k - 1}, and {IGNORE} where there is none"
        )
        if not isinstance(targets, Tensor) or targets.dtype != torch.int64:
            form = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
            raise ConfigError(f"{wanted}; these are {form}")
        if targets.dim() != 3 or len(targets) != batch_size:
            raise ConfigError(f"{wanted}; these are {tuple(targets.shape)}")
        if values and (((targets < 0) | (targets >= k)) & (targets != IGNORE)).any():
            raise ConfigError(f"{wanted}; these have other numbers")

    def soft_loss(
        self, outputs: Tensor, reference: Tensor, temperature: float, *, mask: Tensor | None = None
    ) -> Tensor:
        """τ²-scaled KL divergence, averaged over the pixels of the reference.

        With a mask (B, H, W) the mean is over valid pixels: where the reference is coarser than the
        mask, each of its cells is weighted by the fraction of its pixels that are valid.
        """
        size = reference.shape[-2:]
        weight = mask_weights(mask, size)
        return kl_divergence(resize_scores(outputs, size), reference, temperature, weight)

    def valid_mask(self, targets: Tensor) -> Tensor:
        """Which pixels have a class, (B, H, W) bool."""
        return targets != IGNORE

    def metric(self) -> "MetricCollection":
        """Mean intersection over union (of the classes that occur), and pixel accuracy."""
        from torchmetrics import MetricCollection

        from .pixel_metrics import PixelAccuracy, PixelJaccardIndex

        k = len(self.classes)
        metrics: dict[str, Metric | MetricCollection] = {
            "miou": PixelJaccardIndex(k, ignore_index=IGNORE),
            "accuracy": PixelAccuracy(k, average="micro", ignore_index=IGNORE),
        }
        return MetricCollection(metrics, compute_groups=False)

    def matrix_metrics(self) -> dict[str, Any]:
        """The confusion matrix of pixels: rows are true classes, columns predicted ones."""
        from .pixel_metrics import PixelConfusionMatrix

        return {"confusion": PixelConfusionMatrix(len(self.classes), ignore_index=IGNORE)}

    def per_class_metric(self) -> "Metric":
        """Intersection over union, accuracy (recall) and number of pixels of each class."""
        from .pixel_metrics import PixelClassMetrics

        return PixelClassMetrics(len(self.classes), ignore_index=IGNORE)

    def visualize(self, images: Tensor, targets: Tensor, outputs: Tensor) -> list[Tensor]:
        """Each class in its color over the image; void pixels of the target stay uncolored."""
        predictions = resize_scores(outputs, targets.shape[-2:]).argmax(1)
        k = len(self.classes)
        return [
            torch.cat([draw_labels(x, target, k), _gap(x), draw_labels(x, prediction, k)], -1)
            for x, target, prediction in zip(images, targets, predictions, strict=True)
        ]

    def inference_module(self, network: nn.Module) -> nn.Module:
        """The network with scores at the image's resolution, (B, K, H, W)."""
        return _FullResolution(network)

    def check_output(self, network: nn.Module, output: Any) -> None:
        """The network must map (B, C, H, W) to (B, K, h, w)."""
        expected = (len(self.example), len(self.classes))
        require_tensor(network, output)
        if output.dim() != 4 or tuple(output.shape[:2]) != expected:
            name = type(network).__name__
            raise ConfigError(
                f"{name} gives {tuple(output.shape)} for {expected[0]} images, but "
                f"segmentation into {expected[1]} classes asks for {(*expected, 'h', 'w')}; "
                "`selfdistill models` lists networks for it"
            )


def draw_labels(image: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """An image (3, H, W) uint8 under the colors of its labels (H, W)."""
    from torchvision.utils import draw_segmentation_masks

    classes = torch.arange(num_classes, device=labels.device)
    of_class = labels == classes[:, None, None]  # (K, H, W)
    drawn: Tensor = draw_segmentation_masks(
        image, of_class, alpha=_OPACITY, colors=list(colors(num_classes))
    )
    return drawn


class _FullResolution(nn.Module):
    """A network whose scores are resized to the image's resolution.

    Args:
        network: (B, C, H, W) to scores (B, K, h, w).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K, H, W)."""
        return resize_scores(self.network(x), x.shape[-2:])


def _gap(image: Tensor) -> Tensor:
    return image.new_full((*image.shape[:2], _GAP), 255)
