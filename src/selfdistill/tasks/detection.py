"""Detection: any number of objects per image, each with a class and a box."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core import ConfigError, DataError, Task
from ..modules.anchor_head import AnchorHead
from ..modules.detector_output import Detections, DetectorOutput
from ..modules.exportable_detector import DecodableOutput, ExportableDetector
from ..taps import example_output
from .colors import colors

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

_MIN_DRAWN_SCORE = 0.3  # of a detection that is drawn
_MAX_DRAWN = 20  # detections drawn
_MIN_SIDE = 480  # pixels of the longer side, so that labels of ten pixels are legible
_GAP = 4  # pixels between target and prediction


class Detection(Task):
    """Boxes of K ≥ 1 classes; each detector brings its own loss with its outputs.

    Outputs are `DetectorOutput`. Targets are (B, M, 5) float32: class, x1, y1, x2,
    y2 in pixels of the network's input, padded with rows of class −1.

    Args:
        classes: their names, in the order of their labels.
        example: two images as the network takes them, (2, C, H, W).
        label_smoothing: must be 0, since detectors' class terms are binary.

    Raises:
        DataError: no class.
        ConfigError: label smoothing.
    """

    primary_metric = "map"
    name = "detection"
    output_names = Detections._fields

    def __init__(
        self, classes: Sequence[str], example: Tensor, *, label_smoothing: float = 0.0
    ) -> None:
        if not classes:
            raise DataError("detection needs a class or more; there is none")
        if label_smoothing:
            raise ConfigError(
                "label_smoothing belongs to classes of images or pixels, not to boxes"
            )
        self.classes, self.example = list(classes), example
        self.size = (int(example.shape[-2]), int(example.shape[-1]))

    def head(self, channels: int) -> nn.Module:
        """An anchor head on one map, with all nine anchors of YOLOv5."""
        return AnchorHead([channels], len(self.classes))

    def loss(self, outputs: DetectorOutput, targets: Tensor) -> Tensor:
        """The detector's own loss."""
        return outputs.loss(targets, self.size)

    def check_targets(self, targets: Any, batch_size: int, *, values: bool = True) -> None:
        """Boxes (B, M, 5) of class, x1, y1, x2, y2."""
        k = len(self.classes)
        wanted = (
            f"boxes of {k} classes are ({batch_size}, M, 5) floats: a class of 0 … {k - 1}, or −1 "
            "for a row without a box, and x1, y1, x2, y2 in pixels"
        )
        if not isinstance(targets, Tensor) or not targets.is_floating_point():
            raise ConfigError(f"{wanted}; these are {type(targets).__name__}")
        if targets.dim() != 3 or (len(targets), targets.shape[2]) != (batch_size, 5):
            raise ConfigError(f"{wanted}; these are {tuple(targets.shape)}")
        if values and ((targets[:, :, 0] < -1) | (targets[:, :, 0] >= k)).any():
            raise ConfigError(f"{wanted}; these have other classes")

    def outputs_compatible(self, outputs: DetectorOutput, reference: DetectorOutput) -> bool:
        """Whether both are for the same positions and anchors."""
        return outputs.compatible_with(reference)

    def soft_loss(
        self,
        outputs: DetectorOutput,
        reference: DetectorOutput,
        temperature: float,
        *,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Distillation of classes and boxes between detectors of one form.

        Raises:
            ConfigError: the two differ in form.
        """
        if not outputs.compatible_with(reference):
            raise ConfigError(
                "these two detectors have different positions or anchors, so their outputs do not "
                "compare; use networks of one family, or a method on features"
            )
        return outputs.soft_loss(reference, temperature)

    def metric(self) -> "MetricCollection":
        """COCO's mean average precision: `map` over IoU .5 … .95, and `map50` at .5."""
        from torchmetrics import MetricCollection

        from .average_precision import CocoMeanPrecision

        return MetricCollection({"boxes": CocoMeanPrecision(self.size)}, compute_groups=False)

    def train_metric(self) -> "MetricCollection":
        """No metric: average precision is costly and the boxes of a training batch are few."""
        from torchmetrics import MetricCollection

        return MetricCollection({})

    def per_class_metric(self) -> "Metric":
        """Average precision and number of target boxes of each class."""
        from .average_precision import CocoClassPrecision

        return CocoClassPrecision(self.size, len(self.classes))

    def inference_module(self, network: nn.Module) -> nn.Module:
        """The network with decoding and suppression, see `ExportableDetector`.

        Raises:
            ConfigError: its outputs are not decoded by tensor operations alone.
        """
        if not isinstance(example_output(network, self.example), DecodableOutput):
            raise ConfigError(
                f"{type(network).__name__} finds its boxes in a way that is not exported; "
                "the yolov5 networks and every exit with a head of anchors are"
            )
        return ExportableDetector(network, self.size)

    def visualize(self, images: Tensor, targets: Tensor, outputs: DetectorOutput) -> list[Tensor]:
        """Boxes with their classes: targets, and up to 20 detections that score .3 or more."""
        drawings = []
        detections = outputs.detections(self.size)
        for image, rows, predicted in zip(images, targets, detections, strict=True):
            true, count = rows[rows[:, 0] >= 0], int((predicted.scores >= _MIN_DRAWN_SCORE).sum())
            shown = Detections(*(column[: min(count, _MAX_DRAWN)] for column in predicted))
            scores = [f"{score:.2f}" for score in shown.scores.tolist()]
            true_names = self._captions(true[:, 0].long(), [""] * len(true))
            target = draw_boxes(image, true[:, 1:], true[:, 0].long(), true_names)
            names = self._captions(shown.labels, scores)
            prediction = draw_boxes(image, shown.boxes, shown.labels, names)
            gap = target.new_full((3, target.shape[1], _GAP), 255)
            drawings.append(torch.cat([target, gap, prediction], -1))
        return drawings

    def _captions(self, labels: Tensor, scores: list[str]) -> list[str]:
        pairs = zip(labels.tolist(), scores, strict=True)
        return [f"{self.classes[k]} {score}".strip() for k, score in pairs]

    def check_output(self, network: nn.Module, output: Any) -> None:
        """The network must map (B, C, H, W) to `DetectorOutput` of as many classes."""
        if not isinstance(output, DetectorOutput):
            actual = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ConfigError(
                f"{type(network).__name__} gives {actual}, no detector's predictions; "
                "`selfdistill models` lists networks for detection"
            )
        classes = getattr(output, "classes", len(self.classes))  # torchvision's do not tell
        if classes != len(self.classes):
            raise ConfigError(
                f"{type(network).__name__} finds objects of {classes} classes and the data have "
                f"{len(self.classes)}; build it with num_classes={len(self.classes)}"
            )


def draw_boxes(image: Tensor, boxes: Tensor, labels: Tensor, captions: list[str]) -> Tensor:
    """Boxes (D, 4) in an image (3, H, W) uint8, in the colors of their classes.

    A small image is enlarged by an integer so that text is legible.
    """
    from torchvision.utils import draw_bounding_boxes

    factor = max(1, -(-_MIN_SIDE // max(image.shape[1:])))
    large = image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    if not len(boxes):
        return large
    classes = labels.tolist()
    shades = colors(max(classes) + 2)[1:]  # gray is no class
    drawn: Tensor = draw_bounding_boxes(
        large,
        boxes * factor,
        labels=captions,
        colors=[shades[k] for k in classes],
        width=2,
        fill_labels=True,
    )
    return drawn
