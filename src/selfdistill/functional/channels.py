"""Gray images as color, and color as gray."""

from collections.abc import Sequence

import torch
from torch import Tensor

_LUMA = (19595, 38470, 7471)  # of red, green and blue in 2¹⁶ parts: ITU-R BT.601, as Pillow has it


def channels_convertible(old: int, new: int) -> bool:
    """Whether `convert_channels` knows the way."""
    return old == new or {old, new} == {1, 3}


def convert_channels(images: Tensor, channels: int) -> Tensor:
    """Gray images repeated in three channels, or the luma of color ones (ITU-R BT.601).

    Args:
        images: (..., C, H, W), uint8 or floating point.
        channels: wanted; 1 or 3, if it is not C.

    Returns:
        (..., channels, H, W) of the same type; a view where nothing is computed.
    """
    old = images.shape[-3]
    if old == channels:
        return images
    if not channels_convertible(old, channels):
        raise ValueError(f"{old} channels cannot be converted to {channels}")
    if channels == 3:
        return images.expand(*images.shape[:-3], 3, *images.shape[-2:])
    if images.dtype == torch.uint8:
        red, green, blue = (images.select(-3, c).int() * w for c, w in enumerate(_LUMA))
        return ((red + green + blue + (1 << 15)) >> 16).to(torch.uint8).unsqueeze(-3)
    weights = images.new_tensor(_LUMA) / (1 << 16)
    return (images * weights[:, None, None]).sum(-3, keepdim=True)


def convert_moments(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Mean or deviation of each channel, for images of other channels.

    The mean of luma is exact; its deviation is that of channels that rise and fall together, which
    those of pictures nearly do.
    """
    if len(values) == channels:
        return tuple(values)
    if channels == 3:
        return tuple(values) * 3
    return (sum(value * weight for value, weight in zip(values, _LUMA, strict=True)) / (1 << 16),)
