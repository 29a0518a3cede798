"""Random changes of color, each draw keyed by its sample as those of `augment` are."""

import torch
from torch import Tensor

from ..core import keyed_random

_COLOR = keyed_random.purpose("color")
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


def color_jitter(
    images: Tensor, strength: float, seed: int, epoch: int, index: Tensor, view: int = 0
) -> Tensor:
    """Random brightness, contrast and saturation, in this order, as torchvision's `ColorJitter`.

    Each factor is uniform in 1 − strength … 1 + strength. All frames of a clip are changed alike,
    and their contrast is that about the mean of all. Of other than three channels saturation is
    left out.

    Args:
        images: (B, C, H, W) or (B, C, T, H, W) uint8.
        strength: in [0, 1]; 0 returns the images as they are.
        seed, epoch, view: keys of the draw.
        index: (B,) int64 on the images' device, of each sample in the training set.

    Returns:
        uint8 of the same shape.
    """
    if not strength:
        return images
    draws = torch.arange(3, device=index.device)[:, None]
    factors = 1 + strength * (2 * keyed_random.uniform(_COLOR, seed, epoch, index, view, draws) - 1)
    brightness, contrast, saturation = factors.view(3, -1, *[1] * (images.dim() - 1))
    x = (images.float() * brightness).clamp_(0, 255)
    mean = _gray(x).mean(tuple(range(1, x.dim())), keepdim=True)
    x = (mean + (x - mean) * contrast).clamp_(0, 255)
    if x.shape[1] == 3:
        gray = _gray(x)
        x = (gray + (x - gray) * saturation).clamp_(0, 255)
    jittered: Tensor = x.round_().to(torch.uint8)
    return jittered


def _gray(images: Tensor) -> Tensor:
    """The luma of color images, the mean channel of others: (B, 1, …)."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    channels = zip(images.split(1, 1), _LUMA, strict=True)
    gray: Tensor = torch.stack([channel * weight for channel, weight in channels]).sum(0)
    return gray
