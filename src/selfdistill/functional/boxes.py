"""What losses and answers of detectors are made of: overlap, focal terms, suppression."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_SCORE, IOU_THRESHOLD, MAX_DETECTIONS, MAX_CANDIDATES = 0.001, 0.6, 300, 3000
"""How boxes are thinned out, as YOLOv5 judges itself: those above a score, of two of one class with
a larger IoU the surer one, so many an image, of the surest that are looked at (there 30,000)."""
_TINY = 1e-7


def complete_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Complete intersection over union of boxes in pairs, in −1.5 … 1.

    Zheng et al. 2020, https://arxiv.org/abs/1911.08287, eq. 10–12: IoU, less the squared distance
    of the centers over the squared diagonal of what encloses both, less a term of the proportions
    whose weight carries no gradient. torchvision's loss divides widths by heights, so a box without
    height has the gradient nan; here the angle comes of both sides at once.

    Args:
        boxes, others: (..., 4): x1, y1, x2, y2.

    Returns:
        (...,) in fp32.
    """
    (mine, theirs), corners = (_sides(boxes), _sides(others)), (boxes.float(), others.float())
    low, high = (_pair(corners, slice(0, 2)), _pair(corners, slice(2, 4)))
    shared = (torch.minimum(*high) - torch.maximum(*low)).clamp(min=0).prod(-1)
    iou = shared / (mine.prod(-1) + theirs.prod(-1) - shared + _TINY)
    diagonal = (torch.maximum(*high) - torch.minimum(*low)).square().sum(-1) + _TINY
    distance = ((low[0] + high[0] - low[1] - high[1]) / 2).square().sum(-1)
    angles = torch.atan2(*mine.unbind(-1)) - torch.atan2(*theirs.unbind(-1))
    proportion = 4 / math.pi**2 * angles.square()
    weight = (proportion / (1 - iou + proportion + _TINY)).detach()
    return iou - distance / diagonal - weight * proportion


def _sides(boxes: Tensor) -> Tensor:
    """(..., 4) -> (..., 2): width and height, never nothing."""
    return (boxes[..., 2:] - boxes[..., :2]).float().clamp(min=_TINY)


def _pair(corners: tuple[Tensor, Tensor], part: slice) -> tuple[Tensor, Tensor]:
    return corners[0][..., part], corners[1][..., part]


def focal_loss(scores: Tensor, targets: Tensor, gamma: float, alpha: float = 0.25) -> Tensor:
    r"""Focal loss of each entry, for targets anywhere in 0 … 1.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002, eq. 5, as YOLOv5 has it for soft targets:

    .. math:: L = (y \alpha + (1 - y)(1 - \alpha)) \, (y (1 - p) + (1 - y) p)^\gamma \, BCE(p, y)

    Args:
        scores: before the sigmoid.
        targets: y, of the same shape.
        gamma: how much entries that are right count less; 0 is plain binary cross-entropy.
        alpha: weight of what is there; of what is not, 1 − α.
    """
    scores, targets = scores.float(), targets.float()
    entropy = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
    if gamma == 0:
        return entropy
    p = scores.sigmoid()
    wrong = targets * (1 - p) + (1 - targets) * p
    share = targets * alpha + (1 - targets) * (1 - alpha)
    return share * wrong.pow(gamma) * entropy


def binary_divergence(scores: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """τ² KL(reference ‖ scores) of each entry, both through a sigmoid at temperature τ; fp32."""
    scores, reference = scores.float() / temperature, reference.float() / temperature
    target = reference.sigmoid()
    cross = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    own = F.binary_cross_entropy_with_logits(reference, target, reduction="none")
    return temperature**2 * (cross - own)


def class_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    least: float = MIN_SCORE,
    overlap: float = IOU_THRESHOLD,
    count: int = MAX_DETECTIONS,
    looked_at: int = MAX_CANDIDATES,
) -> tuple[Tensor, Tensor, Tensor]:
    """What one image's boxes come to when those that say the same are dropped, class by class.

    A box is taken once for each class that it scores for, as YOLOv5 does.

    Args:
        boxes: (N, 4).
        scores: (N, K) in 0 … 1.
        least: a score must be above it.
        overlap: of two boxes of one class with a larger IoU the surer one stays.
        count: how many stay at most.
        looked_at: how many are compared, the surest.

    Returns:
        Boxes (D, 4), scores (D,) falling and labels (D,).
    """
    from torchvision.ops import batched_nms

    classes = scores.shape[1]
    best, place = scores.flatten().topk(min(looked_at, scores.numel()))
    best, place = best[best > least], place[best > least]
    boxes, labels = boxes[place // classes], place % classes
    kept = batched_nms(boxes, best, labels, overlap)[:count]
    return boxes[kept], best[kept], labels[kept]
