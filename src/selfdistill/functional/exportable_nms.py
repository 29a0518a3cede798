"""Suppression of boxes in tensor operations alone, as part of a network that is exported."""

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

State = tuple[Tensor, Tensor, Tensor, Tensor]


def exportable_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, overlap: float, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Of boxes of one class that say the same only the surest: what torchvision's `nms` keeps.

    The surest box is taken, those of its class that overlap it go, and so on until there are
    enough. Shapes depend on nothing that is seen and no step looks at an image by itself, so
    `torch.export` and ONNX take it for batches of any size, which `nms` is not made for.

    Args:
        boxes: (B, N, 4): x1, y1, x2, y2.
        scores: (B, N); 0 is no box.
        labels: (B, N).
        overlap: of two boxes of one class with a larger IoU the surer one stays.
        count: D, how many stay at most.

    Returns:
        Boxes (B, D, 4), scores (B, D) falling and labels (B, D); where there are fewer than D boxes
        they are 0.
    """
    turns = torch.arange(count, device=boxes.device)
    order = torch.arange(boxes.shape[1], device=boxes.device)

    def going(turn: Tensor, left: Tensor, place: Tensor, sure: Tensor) -> Tensor:
        return (turn < count) & (left > 0).any()

    def again(turn: Tensor, left: Tensor, place: Tensor, sure: Tensor) -> State:
        best, first = left.max(1, keepdim=True)  # (B, 1)
        same = labels == labels.gather(1, first)
        gone = (order == first) | (same & (_iou(_at(boxes, first), boxes) > overlap))
        here = turns == turn
        return (
            turn + 1,
            torch.where(gone, 0.0, left),
            torch.where(here, first, place),
            torch.where(here, best, sure),
        )

    nothing = scores[:, :1].expand(-1, count) * 0
    state: State = (turns.new_zeros(()), scores.clone(), nothing.long(), nothing)
    if torch.compiler.is_exporting():
        state = while_loop(going, again, state)
    else:
        while bool(going(*state)):
            state = again(*state)
    _, _, place, sure = state
    there = sure > 0
    return _at(boxes, place) * there[..., None], sure, labels.gather(1, place) * there


def _at(boxes: Tensor, place: Tensor) -> Tensor:
    """(B, N, 4) and (B, D) -> (B, D, 4)."""
    return boxes.gather(1, place[..., None].expand(-1, -1, 4))


def _iou(box: Tensor, boxes: Tensor) -> Tensor:
    """(B, 1, 4) and (B, N, 4) -> (B, N)."""
    low, high = torch.maximum(box, boxes)[..., :2], torch.minimum(box, boxes)[..., 2:]
    shared = (high - low).clamp(min=0).prod(-1)
    mine, theirs = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (box, boxes))
    return shared / (mine + theirs - shared)
