"""Objects with a class and a box, as many an image as there are."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchvision.utils import draw_bounding_boxes

from ..core import ConfigError, DataError, Task
from ..modules.anchor_head import AnchorHead
from ..modules.detector_output import Detections, DetectorOutput
from ..modules.exportable_detector import DecodableOutput, ExportableDetector
from ..taps import evaluation_mode
from .average_precision import CocoClassPrecision, CocoMeanPrecision
from .colors import colors

_SURE = 0.3  # score of an answer that is drawn
_MOST = 20  # answers drawn
_LEGIBLE = 480  # pixels that the longer side has at least, under words of ten pixels
_GAP = 4  # pixels between truth and answer


class Detection(Task):
    """Boxes of K ≥ 1 classes; each detector brings its own loss with its outputs.

    Outputs are `modules.predictions.Predictions`. Targets are (B, M, 5) float32: class, x1, y1, x2,
    y2 in pixels of the network's input, rows of class −1 holding no box.

    Args:
        classes: their names, in the order of their labels.
        example: two images as the network takes them, (2, C, H, W).
        label_smoothing: is refused: detectors' class terms are binary.

    Raises:
        DataError: no class.
        ConfigError: label smoothing.
    """

    primary_metric = "map"
    name = "detection"

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

    def outputs_compatible(self, outputs: DetectorOutput, reference: DetectorOutput) -> bool:
        """Whether both say something of the same places and anchors."""
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
                "these two detectors speak of different places or anchors, so their outputs do not "
                "compare; use networks of one family, or a method on features"
            )
        return outputs.soft_loss(reference, temperature)

    def metric(self) -> MetricCollection:
        """COCO's mean average precision: `map` over IoU .5 … .95, and `map50` at .5."""
        return MetricCollection({"boxes": CocoMeanPrecision(self.size)}, compute_groups=False)

    def train_metric(self) -> MetricCollection:
        """Nothing: the boxes of a batch in training are too few to be worth their price."""
        return MetricCollection({})

    def per_class_metric(self) -> Metric:
        """Average precision of each class, and how many boxes there are to find."""
        return CocoClassPrecision(self.size, len(self.classes))

    def inference_module(self, network: nn.Module) -> nn.Module:
        """Boxes in pixels, scores and labels of the 300 surest objects, see `modules.detector`.

        Raises:
            ConfigError: its outputs do not become boxes by tensor operations alone.
        """
        device = next((p.device for p in network.parameters()), self.example.device)
        with evaluation_mode(network):
            out = network(self.example.to(device))
        if not isinstance(out, DecodableOutput):
            raise ConfigError(
                f"{type(network).__name__} finds its boxes in a way that is not exported; "
                "the yolov5 networks and every exit with a head of anchors are"
            )
        return ExportableDetector(network, self.size)

    def visualize(self, images: Tensor, targets: Tensor, outputs: DetectorOutput) -> list[Tensor]:
        """Boxes with their classes; of the answers the surest 20 of a score of .3 and more."""
        pictures = []
        for image, rows, found in zip(images, targets, outputs.detections(self.size), strict=True):
            true, sure = rows[rows[:, 0] >= 0], int((found.scores >= _SURE).sum())
            some = Detections(*(part[: min(sure, _MOST)] for part in found))
            names = [f"{score:.2f}" for score in some.scores.tolist()]
            truth = self._drawn(image, true[:, 1:], true[:, 0].long(), [""] * len(true))
            answer = self._drawn(image, some.boxes, some.labels, names)
            gap = truth.new_full((3, truth.shape[1], _GAP), 255)
            pictures.append(torch.cat([truth, gap, answer], -1))
        return pictures

    def _drawn(self, image: Tensor, boxes: Tensor, labels: Tensor, further: list[str]) -> Tensor:
        """An image (3, H, W), enlarged by a whole number so that words can be read, with boxes."""
        times = max(1, -(-_LEGIBLE // max(image.shape[1:])))
        large = image.repeat_interleave(times, 1).repeat_interleave(times, 2)
        if not len(boxes):
            return large
        places, shades = labels.tolist(), colors(len(self.classes) + 1)[1:]  # gray is no class
        drawn: Tensor = draw_bounding_boxes(
            large,
            boxes * times,
            labels=[f"{self.classes[k]} {x}".strip() for k, x in zip(places, further, strict=True)],
            colors=[shades[k] for k in places],
            width=2,
            fill_labels=True,
        )
        return drawn

    def check(self, network: nn.Module) -> None:
        """The network must map (B, C, H, W) to `DetectorOutput` of as many classes."""
        device = next((p.device for p in network.parameters()), self.example.device)
        with evaluation_mode(network):
            out = network(self.example.to(device))
        if not isinstance(out, DetectorOutput):
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ConfigError(
                f"{type(network).__name__} gives {got}, no detector's predictions; "
                "`selfdistill models` lists networks for detection"
            )
        known = getattr(out, "classes", len(self.classes))  # torchvision's do not tell
        if known != len(self.classes):
            raise ConfigError(
                f"{type(network).__name__} finds objects of {known} classes and the data have "
                f"{len(self.classes)}; build it with num_classes={len(self.classes)}"
            )
