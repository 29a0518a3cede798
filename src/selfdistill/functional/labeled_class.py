"""An image's own class, and the others."""

import torch
from torch import Tensor


def at_label(values: Tensor, labels: Tensor) -> Tensor:
    """Values of classes (B, K) at the labels (B,) -> (B,)."""
    return values.gather(1, labels[:, None])[:, 0]


def without_label(values: Tensor, labels: Tensor) -> Tensor:
    """Values of classes (B, K) -> (B, K - 1), without those at the labels (B,)."""
    ranks = torch.arange(values.shape[1] - 1, device=values.device).expand(len(values), -1)
    return values.gather(1, ranks + (ranks >= labels[:, None]))
