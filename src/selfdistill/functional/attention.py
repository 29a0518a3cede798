"""Spatial attention maps."""

import torch.nn.functional as F
from torch import Tensor

from .places import pooled_to_size


def attention_map(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H·W) of unit length: the normalized mean of squared channels, in fp32.

    Of a clip's map (B, C, T, H, W) the places are T·H·W.

    Activation-based attention (Zagoruyko and Komodakis 2017, https://arxiv.org/abs/1612.03928, Eq.
    1 with p = 2); their sum over the channels differs by a factor that the unit length takes away.
    """
    return F.normalize(x.float().square().mean(1).flatten(1))


def pooled_to(x: Tensor, like: Tensor) -> Tensor:
    """Average a map down to the size of another; a side that is smaller already stays."""
    return pooled_to_size(
        x, [min(sides) for sides in zip(x.shape[2:], like.shape[2:], strict=True)]
    )
