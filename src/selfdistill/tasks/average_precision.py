"""COCO's average precision of detectors."""

from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision

from ..modules.detector_output import DetectorOutput


class _CocoPrecision(Metric):
    """Detections and targets as rows, which processes can join whatever their numbers.

    torchmetrics' own metric keeps a tensor per image, exchanges them one by one, and hangs if the
    processes have different numbers of images.

    Args:
        size: (H, W) of the network's input in pixels.
    """

    full_state_update = False
    detected: list[Tensor]
    targets: list[Tensor]

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.images = size, 0
        self.add_state("detected", [], dist_reduce_fx="cat")  # (D, 7): image, label, score, box
        self.add_state("targets", [], dist_reduce_fx="cat")  # (M, 6): image, label, box

    def update(self, preds: DetectorOutput, target: Tensor) -> None:
        """Add a batch."""
        for detections, rows in zip(preds.detections(self.size), target.float(), strict=True):
            true, image = rows[rows[:, 0] >= 0], self._next_image()
            columns = [detections.labels[:, None], detections.scores[:, None], detections.boxes]
            detected = torch.cat([c.to(rows) for c in columns], 1)
            number = detected.new_full((len(detected), 1), image)
            self.detected.append(torch.cat([number, detected], 1))
            self.targets.append(torch.cat([true.new_full((len(true), 1), image), true], 1))

    def _next_image(self) -> int:
        """A number unique to an image over all processes; exact in fp32."""
        ranks = distributed.is_available() and distributed.is_initialized()
        rank, world = (distributed.get_rank(), distributed.get_world_size()) if ranks else (0, 1)
        self.images += 1
        return (self.images - 1) * world + rank

    def reset(self) -> None:
        """Drop all rows."""
        super().reset()
        self.images = 0

    def coco_results(self, *, class_metrics: bool) -> dict[str, Tensor]:
        """torchmetrics' results over all images by COCO's rules."""
        detected, targets = _concatenated(self.detected, 7), _concatenated(self.targets, 6)
        numbers = torch.cat([detected[:, 0], targets[:, 0]])
        count = int(numbers.max()) + 1 if len(numbers) else 0
        metric = MeanAveragePrecision(
            backend="faster_coco_eval", class_metrics=class_metrics, sync_on_compute=False
        )
        metric.warn_on_many_detections = False  # 100 of a class count, as in COCO
        metric.update(
            [
                {"labels": r[:, 1].long(), "scores": r[:, 2], "boxes": r[:, 3:]}
                for r in _by_image(detected, count)
            ],
            [{"labels": r[:, 1].long(), "boxes": r[:, 2:]} for r in _by_image(targets, count)],
        )
        result: dict[str, Tensor] = metric.compute()
        return result


class CocoMeanPrecision(_CocoPrecision):
    """Mean average precision over IoU .5 … .95 and at .5.

    Lin et al. 2014, https://arxiv.org/abs/1405.0312; computed by faster-coco-eval.
    """

    def compute(self) -> dict[str, Tensor]:
        """`map` and `map50`; 0 without any target."""
        result = self.coco_results(class_metrics=False)
        return {"map": result["map"].clamp(min=0), "map50": result["map_50"].clamp(min=0)}


class CocoClassPrecision(_CocoPrecision):
    """Average precision of each class.

    Args:
        size: (H, W) of the network's input in pixels.
        classes: number of classes.
    """

    def __init__(self, size: tuple[int, int], classes: int) -> None:
        super().__init__(size)
        self.classes = classes

    def compute(self) -> dict[str, Tensor]:
        """{"ap": (K,), "boxes": (K,)}; nan for a class without a box."""
        labels = _concatenated(self.targets, 6)[:, 1].long()
        boxes = torch.bincount(labels, minlength=self.classes)
        result = self.coco_results(class_metrics=True)
        precision = torch.full((self.classes,), torch.nan)
        precision[result["classes"].reshape(-1).long()] = result["map_per_class"].reshape(-1)
        return {"ap": torch.where(boxes > 0, precision, torch.nan), "boxes": boxes}


def _concatenated(rows: Any, width: int) -> Tensor:
    """One tensor of the rows of a process, or of all processes, on the CPU."""
    parts = [rows] if isinstance(rows, Tensor) else rows
    return torch.cat([torch.zeros(0, width), *(part.cpu() for part in parts)])


def _by_image(rows: Tensor, count: int) -> tuple[Tensor, ...]:
    """The rows of each image, in their order."""
    image = rows[:, 0].long()
    sizes = torch.bincount(image, minlength=count).tolist()
    return torch.split(rows[image.argsort(stable=True)], sizes)
