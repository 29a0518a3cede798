"""Means over the places of a feature: rows and columns, and of a clip the times before them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def mean_over_places(x: Tensor) -> Tensor:
    """(B, C, H, W) or (B, C, T, H, W) -> (B, C)."""
    return x.mean(tuple(range(2, x.dim())))


def pooled_to_size(x: Tensor, size: Sequence[int]) -> Tensor:
    """Averaged to (h, w), or of a clip's map to (t, h, w); a map of that size is handed back."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    pool: Callable[..., Any] = {
        2: F.adaptive_avg_pool2d,
        3: F.adaptive_avg_pool3d,
    }[len(size)]
    pooled: Tensor = pool(x, tuple(size))
    return pooled
