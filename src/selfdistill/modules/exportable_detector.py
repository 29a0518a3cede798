"""A detector with decoding and suppression: images in, boxes out, in tensors of fixed shape."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..functional.boxes import IOU_THRESHOLD, MAX_CANDIDATES, MAX_DETECTIONS, MIN_SCORE
from ..functional.exportable_nms import exportable_nms


@runtime_checkable
class DecodableOutput(Protocol):
    """Detector outputs that are decoded by tensor operations alone."""

    def decoded(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) in pixels and scores (B, N, K)."""
        ...


class ExportableDetector(nn.Module):
    """A network, the decoding of its outputs, and non-maximum suppression.

    Args:
        network: gives `DecodableOutput` outputs.
        size: height and width of its images in pixels.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, H, W) to boxes (B, 300, 4) in pixels, scores (B, 300) and labels (B, 300).

        Scores descend, and are 0 where an image has fewer boxes.
        """
        boxes, scores = self.network(x).decoded(self.size)
        classes = scores.shape[-1]
        flat = scores.flatten(1)
        best, index = flat.topk(min(MAX_CANDIDATES, flat.shape[1]))
        best = torch.where(best > MIN_SCORE, best, 0.0)
        candidates = boxes.gather(1, (index // classes)[..., None].expand(-1, -1, 4))
        return exportable_nms(
            candidates,
            best,
            index % classes,
            iou_threshold=IOU_THRESHOLD,
            max_detections=MAX_DETECTIONS,
        )
