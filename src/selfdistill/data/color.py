"""Random changes of color, each draw keyed by its sample as those of `augment` are."""

import torch
from torch import Tensor

from ..core import keyed_random

_COLOR, _HSV = map(keyed_random.purpose, ("color", "hsv"))
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


def color_jitter(
    images: Tensor, strength: float, seed: int, epoch: int, index: Tensor, view: int = 0
) -> Tensor:
    """Random brightness, contrast and saturation, as in torchvision's `ColorJitter`.

    They come in this order, where torchvision draws it. Each factor is uniform in 1 − strength …
    1 + strength. All frames of a clip are changed alike, and their contrast is that about the mean
    of all. Of other than three channels saturation is left out.

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


def hsv_jitter(
    images: Tensor,
    gains: tuple[float, ...],
    seed: int,
    epoch: int,
    index: Tensor,
    view: int = 0,
) -> Tensor:
    """Random hue, saturation and value, as YOLOv5 trains (release 5.0,
    https://github.com/ultralytics/yolov5, `augment_hsv`).

    Each is multiplied by a factor that is uniform in 1 − gain … 1 + gain; hue goes round, the
    others are clipped. YOLOv5 rounds hue to two degrees, which is left out. All frames of a clip
    are changed alike.

    Args:
        images: (B, 3, H, W) or (B, 3, T, H, W) uint8: red, green and blue.
        gains: of hue, saturation and value, in [0, 1]; none of them returns the images as they are.
        seed, epoch, view: keys of the draw.
        index: (B,) int64 on the images' device, of each sample in the training set.

    Returns:
        uint8 of the same shape.
    """
    if not any(gains):
        return images
    draws = torch.arange(3, device=index.device)[:, None]
    draw = 2 * keyed_random.uniform(_HSV, seed, epoch, index, view, draws) - 1  # (3, B)
    factors = 1 + draw * torch.tensor(gains, device=index.device)[:, None]
    hue_factor, saturation_factor, value_factor = factors.view(3, -1, *[1] * (images.dim() - 2))
    hue, saturation, value = _to_hsv(images.float())
    hue = (hue * hue_factor).remainder(6)
    saturation = (saturation * saturation_factor).clamp_(max=1)
    value = (value * value_factor).clamp_(max=255)
    return _from_hsv(hue, saturation, value).round_().to(torch.uint8)


def _to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in 0 … 6, saturation in 0 … 1 and value in 0 … 255 of images (B, 3, …): (B, …)."""
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    divisor = chroma.clamp(min=1)  # differences of bytes: zero, or one and more
    of_green, of_blue = (blue - red) / divisor + 2, (red - green) / divisor + 4
    hue = torch.where(value == green, of_green, of_blue)
    hue = torch.where(value == red, ((green - blue) / divisor).remainder(6), hue)
    return hue, chroma / value.clamp(min=1), value


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The way back: red, green and blue, (B, 3, …)."""
    channels = []
    for start in (5, 3, 1):  # how far each channel's ramps are round the circle
        place = (hue + start).remainder(6)
        ramp = torch.minimum(place, 4 - place).clamp(0, 1)
        channels.append(value * (1 - saturation * ramp))
    return torch.stack(channels, 1)
