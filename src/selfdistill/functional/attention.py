"""Where a network looks: spatial attention maps."""

import torch.nn.functional as F
from torch import Tensor


def attention_map(x: Tensor, like: Tensor | None = None) -> Tensor:
    """(B, C, H, W) -> (B, h·w) of unit length: the mean of squared channels.

    Activation-based attention (Zagoruyko and Komodakis 2017, https://arxiv.org/abs/1612.03928, Eq.
    1 with p = 2), in fp32, pooled to the size of `like` where that is given and smaller.
    """
    energy = x.float().square().mean(1, keepdim=True)  # (B, 1, H, W)
    if like is not None:
        energy = pooled_to(energy, like)
    return F.normalize(energy.flatten(1))


def pooled_to(x: Tensor, like: Tensor) -> Tensor:
    """A map averaged down to the size of another; a side that is smaller already stays."""
    size = tuple(min(mine, its) for mine, its in zip(x.shape[-2:], like.shape[-2:], strict=True))
    return x if size == tuple(x.shape[-2:]) else F.adaptive_avg_pool2d(x, size)
