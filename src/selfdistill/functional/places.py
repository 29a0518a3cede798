"""The places of a feature: rows and columns, and of a clip the times before them."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def mean_over_places(x: Tensor) -> Tensor:
    """(B, C, H, W) or (B, C, T, H, W) -> (B, C)."""
    return x.mean(tuple(range(2, x.dim())))


def pooled_to_size(x: Tensor, size: Sequence[int]) -> Tensor:
    """Averaged to (h, w), or of a clip's map to (t, h, w); a map of that size is handed back.

    Times are averaged after rows and columns, which is the same as all at once and what ONNX has.
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    *times, height, width = size
    if not times:
        return F.adaptive_avg_pool2d(x, (height, width))
    frames = F.adaptive_avg_pool2d(x.flatten(1, 2), (height, width))  # (B, C·T, h, w)
    rows = frames.view(*x.shape[:3], height * width)
    pooled = F.adaptive_avg_pool2d(rows, (times[0], height * width))
    return pooled.view(*pooled.shape[:3], height, width)


def resize_scores(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Scores (B, K, h, w) -> (B, K, *size) in fp32, bilinear; (B, K) stay for an empty size."""
    scores = scores.float()
    if tuple(scores.shape[2:]) == tuple(size):
        return scores
    return F.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)
