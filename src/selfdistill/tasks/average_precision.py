"""COCO's average precision over what detectors say."""

from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision

from ..modules.detector_output import DetectorOutput


class _CocoPrecision(Metric):
    """Keeps answers and truths as rows, which processes can join however many each of them has.

    torchmetrics' own metric keeps a tensor an image, exchanges them one by one, and waits for ever
    if the processes have seen different numbers of images.

    Args:
        size: (H, W) of the network's input in pixels.
    """

    full_state_update = False
    answers: list[Tensor]
    truths: list[Tensor]

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.images = size, 0
        self.add_state("answers", [], dist_reduce_fx="cat")  # (D, 7): image, label, score, box
        self.add_state("truths", [], dist_reduce_fx="cat")  # (M, 6): image, label, box

    def update(self, preds: DetectorOutput, target: Tensor) -> None:
        """Take in a batch."""
        for found, rows in zip(preds.detections(self.size), target.float(), strict=True):
            true, image = rows[rows[:, 0] >= 0], self._number()
            columns = [found.labels[:, None], found.scores[:, None], found.boxes]
            said = torch.cat([c.to(rows) for c in columns], 1)
            self.answers.append(torch.cat([said.new_full((len(said), 1), image), said], 1))
            self.truths.append(torch.cat([true.new_full((len(true), 1), image), true], 1))

    def _number(self) -> int:
        """A number that no other image has, in no other process either; exact in fp32."""
        ranks = distributed.is_available() and distributed.is_initialized()
        rank, world = (distributed.get_rank(), distributed.get_world_size()) if ranks else (0, 1)
        self.images += 1
        return (self.images - 1) * world + rank

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.images = 0

    def found(self, *, class_metrics: bool) -> dict[str, Tensor]:
        """What torchmetrics makes of all images by COCO's rules."""
        answers, truths = _joined(self.answers, 7), _joined(self.truths, 6)
        numbers = torch.cat([answers[:, 0], truths[:, 0]])
        count = int(numbers.max()) + 1 if len(numbers) else 0
        metric = MeanAveragePrecision(
            backend="faster_coco_eval", class_metrics=class_metrics, sync_on_compute=False
        )
        metric.warn_on_many_detections = False  # the surest 100 of a class count, as in COCO
        said = [
            {"labels": r[:, 1].long(), "scores": r[:, 2], "boxes": r[:, 3:]}
            for r in _by_image(answers, count)
        ]
        true = [{"labels": r[:, 1].long(), "boxes": r[:, 2:]} for r in _by_image(truths, count)]
        metric.update(said, true)
        result: dict[str, Tensor] = metric.compute()
        return result


class CocoMeanPrecision(_CocoPrecision):
    """Mean average precision over IoU .5 … .95 and at .5.

    Lin et al. 2014, https://arxiv.org/abs/1405.0312; computed by faster-coco-eval.
    """

    def compute(self) -> dict[str, Tensor]:
        """`map` and `map50`; 0 where nothing is to be found."""
        result = self.found(class_metrics=False)
        return {"map": result["map"].clamp(min=0), "map50": result["map_50"].clamp(min=0)}


class CocoClassPrecision(_CocoPrecision):
    """Average precision of each class.

    Args:
        size: (H, W) of the network's input in pixels.
        classes: how many there are.
    """

    def __init__(self, size: tuple[int, int], classes: int) -> None:
        super().__init__(size)
        self.classes = classes

    def compute(self) -> dict[str, Tensor]:
        """{"ap": (K,), "boxes": (K,)}; nan for a class of which there is no box."""
        truths = _joined(self.truths, 6)[:, 1].long()
        boxes = torch.bincount(truths, minlength=self.classes)
        result = self.found(class_metrics=True)
        precision = torch.full((self.classes,), torch.nan)
        precision[result["classes"].reshape(-1).long()] = result["map_per_class"].reshape(-1)
        return {"ap": torch.where(boxes > 0, precision, torch.nan), "boxes": boxes}


def _joined(rows: Any, width: int) -> Tensor:
    """One tensor of what a process has, or of what all have, on the CPU."""
    parts = [rows] if isinstance(rows, Tensor) else rows
    return torch.cat([torch.zeros(0, width), *(part.cpu() for part in parts)])


def _by_image(rows: Tensor, count: int) -> tuple[Tensor, ...]:
    """Those of each image, in the order in which they came."""
    image = rows[:, 0].long()
    sizes = torch.bincount(image, minlength=count).tolist()
    return torch.split(rows[image.argsort(stable=True)], sizes)
