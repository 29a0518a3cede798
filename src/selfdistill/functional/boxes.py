"""Boxes: complete IoU, focal loss, non-maximum suppression."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Non-maximum suppression as YOLOv5 evaluates, but for its 30,000 candidates.
MIN_SCORE = 0.001
IOU_THRESHOLD = 0.6
MAX_DETECTIONS = 300
MAX_CANDIDATES = 3000
_TINY = 1e-7


def complete_iou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Complete intersection over union of pairs of boxes, in −1.5 … 1.

    Zheng et al. 2020, https://arxiv.org/abs/1911.08287, eq. 10–12: IoU, less the squared distance
    of the centers over the squared diagonal of the enclosing box, less a term of the aspect ratios
    whose weight carries no gradient. torchvision's loss divides widths by heights, so a box without
    height has the gradient nan; here `atan2` takes both sides.

    Args:
        boxes_a, boxes_b: (..., 4): x1, y1, x2, y2.

    Returns:
        (...,) in fp32.
    """
    sides_a, sides_b, corners = _sides(boxes_a), _sides(boxes_b), (boxes_a.float(), boxes_b.float())
    low, high = (_pair(corners, slice(0, 2)), _pair(corners, slice(2, 4)))
    intersection = (torch.minimum(*high) - torch.maximum(*low)).clamp(min=0).prod(-1)
    iou = intersection / (sides_a.prod(-1) + sides_b.prod(-1) - intersection + _TINY)
    diagonal = (torch.maximum(*high) - torch.minimum(*low)).square().sum(-1) + _TINY
    distance = ((low[0] + high[0] - low[1] - high[1]) / 2).square().sum(-1)
    angles = torch.atan2(*sides_a.unbind(-1)) - torch.atan2(*sides_b.unbind(-1))
    proportion = 4 / math.pi**2 * angles.square()
    weight = (proportion / (1 - iou + proportion + _TINY)).detach()
    return iou - distance / diagonal - weight * proportion


def _sides(boxes: Tensor) -> Tensor:
    """(..., 4) -> (..., 2): width and height, at least `_TINY`."""
    return (boxes[..., 2:] - boxes[..., :2]).float().clamp(min=_TINY)


def _pair(corners: tuple[Tensor, Tensor], part: slice) -> tuple[Tensor, Tensor]:
    return corners[0][..., part], corners[1][..., part]


def focal_loss(scores: Tensor, targets: Tensor, gamma: float, alpha: float = 0.25) -> Tensor:
    r"""Focal loss of each entry, for soft targets in 0 … 1.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002, eq. 5, as YOLOv5 has it for soft targets:

    .. math:: L = (y \alpha + (1 - y)(1 - \alpha)) \, (y (1 - p) + (1 - y) p)^\gamma \, BCE(p, y)

    Args:
        scores: before the sigmoid.
        targets: y, of the same shape.
        gamma: exponent of the down-weighting of easy entries; 0 is plain binary cross-entropy.
        alpha: weight of positives; that of negatives is 1 − α.
    """
    scores, targets = scores.float(), targets.float()
    entropy = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
    if gamma == 0:
        return entropy
    p = scores.sigmoid()
    error = targets * (1 - p) + (1 - targets) * p
    balance = targets * alpha + (1 - targets) * (1 - alpha)
    return balance * error.pow(gamma) * entropy


def binary_divergence(scores: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """τ² KL(reference ‖ scores) of each entry, both through a sigmoid at temperature τ; fp32."""
    scores, reference = scores.float() / temperature, reference.float() / temperature
    target = reference.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(reference, target, reduction="none")
    return temperature**2 * (cross_entropy - entropy)


def class_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    min_score: float = MIN_SCORE,
    iou_threshold: float = IOU_THRESHOLD,
    max_detections: int = MAX_DETECTIONS,
    max_candidates: int = MAX_CANDIDATES,
) -> tuple[Tensor, Tensor, Tensor]:
    """Non-maximum suppression of one image's boxes, class by class.

    A box is a candidate once for each class that it scores for, as in YOLOv5.

    Args:
        boxes: (N, 4).
        scores: (N, K) in 0 … 1.
        min_score: candidates must score above it.
        iou_threshold: of two boxes of one class with a larger IoU the one that scores lower is
            dropped.
        max_detections: boxes kept, at most.
        max_candidates: candidates compared, those of the highest scores.

    Returns:
        Boxes (D, 4), scores (D,) in descending order, and labels (D,).
    """
    from torchvision.ops import batched_nms

    classes = scores.shape[1]
    best, index = scores.flatten().topk(min(max_candidates, scores.numel()))
    best, index = best[best > min_score], index[best > min_score]
    boxes, labels = boxes[index // classes], index % classes
    kept = batched_nms(boxes, best, labels, iou_threshold)[:max_detections]
    return boxes[kept], best[kept], labels[kept]
