"""Spatial attention maps."""

import torch.nn.functional as F
from torch import Tensor


def attention_map(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H·W) of unit length: the normalized mean of squared channels, in fp32.

    Activation-based attention (Zagoruyko and Komodakis 2017, https://arxiv.org/abs/1612.03928, Eq.
    1 with p = 2); their sum over the channels differs by a factor that the unit length takes away.
    """
    return F.normalize(x.float().square().mean(1).flatten(1))


def pooled_to(x: Tensor, like: Tensor) -> Tensor:
    """Average a map down to the size of another; a side that is smaller already stays."""
    height, width = (min(a, b) for a, b in zip(x.shape[-2:], like.shape[-2:], strict=True))
    if (height, width) == tuple(x.shape[-2:]):
        return x
    return F.adaptive_avg_pool2d(x, (height, width))
