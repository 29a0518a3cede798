"""Non-maximum suppression in tensor operations alone, as part of an exported network."""

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

State = tuple[Tensor, Tensor, Tensor, Tensor]


def exportable_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, iou_threshold: float, max_detections: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Class-wise non-maximum suppression; keeps what torchvision's `nms` keeps.

    Each step takes the box of the highest score left and drops those of its class that overlap it.
    Shapes do not depend on the values and a step takes all images at once, so `torch.export` and
    ONNX accept it for batches of any size, unlike `nms`.

    Args:
        boxes: (B, N, 4): x1, y1, x2, y2.
        scores: (B, N); 0 is no box.
        labels: (B, N).
        iou_threshold: of two boxes of one class with a larger IoU the one that scores lower is
            dropped.
        max_detections: D, boxes kept, at most.

    Returns:
        Boxes (B, D, 4), scores (B, D) in descending order and labels (B, D); zeros where there are
        fewer than D boxes.
    """
    steps = torch.arange(max_detections, device=boxes.device)
    order = torch.arange(boxes.shape[1], device=boxes.device)

    def has_candidates(step: Tensor, left: Tensor, kept: Tensor, kept_scores: Tensor) -> Tensor:
        return (step < max_detections) & (left > 0).any()

    def keep_best(step: Tensor, left: Tensor, kept: Tensor, kept_scores: Tensor) -> State:
        best, index = left.max(1, keepdim=True)  # (B, 1)
        same_class = labels == labels.gather(1, index)
        overlaps = _iou(_gather_boxes(boxes, index), boxes) > iou_threshold
        dropped = (order == index) | (same_class & overlaps)
        current = steps == step
        return (
            step + 1,
            torch.where(dropped, 0.0, left),
            torch.where(current, index, kept),
            torch.where(current, best, kept_scores),
        )

    zeros = scores[:, :1].expand(-1, max_detections) * 0
    state: State = (steps.new_zeros(()), scores.clone(), zeros.long(), zeros)
    if torch.compiler.is_exporting():
        state = while_loop(has_candidates, keep_best, state)
    else:
        while bool(has_candidates(*state)):
            state = keep_best(*state)
    _, _, kept, kept_scores = state
    is_box = kept_scores > 0
    kept_boxes = _gather_boxes(boxes, kept) * is_box[..., None]
    return kept_boxes, kept_scores, labels.gather(1, kept) * is_box


def _gather_boxes(boxes: Tensor, index: Tensor) -> Tensor:
    """(B, N, 4) and (B, D) -> (B, D, 4)."""
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))


def _iou(box: Tensor, boxes: Tensor) -> Tensor:
    """(B, 1, 4) and (B, N, 4) -> (B, N)."""
    low, high = torch.maximum(box, boxes)[..., :2], torch.minimum(box, boxes)[..., 2:]
    intersection = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (box, boxes))
    return intersection / (area_a + area_b - intersection)
