"""Augmentation of whole batches on their own device, each draw keyed by its sample.

A draw is a function of (purpose, seed, epoch, index, view), whatever the batch, the process and the
worker.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core import keyed_random
from ..core.memory_format import channels_last

_CROP, _FLIP, _BOX = map(keyed_random.purpose, ("crop", "flip", "resized crop"))
_ATTEMPTS = 10
SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)


def random_crop(
    images: Tensor, padding: int, seed: int, epoch: int, index: Tensor, view: int = 0
) -> Tensor:
    """Pad with black and crop to the old size at random, as torchvision's `RandomCrop` does.

    Args:
        images: (B, C, H, W), uint8 as a rule.
        padding: pixels on each side; 0 returns the images as they are.
        seed, epoch, view: keys of the draw.
        index: (B,) int64 on the images' device, of each sample in the training set.

    Returns:
        (B, C, H, W) of the same type.
    """
    if not padding:
        return images
    top, left = crop_offsets(padding, seed, epoch, index, view)
    batch, channels, height, width = images.shape
    padded_height, padded_width = height + 2 * padding, width + 2 * padding
    flat = F.pad(images, (padding,) * 4).flatten()
    # every run of `width` pixels is a row of an overlapping view, so that a crop copies rows,
    # which is fifteen times faster than indexing by top and left
    runs = flat.as_strided((len(flat) - width + 1, width), (1, 1))
    planes = torch.arange(batch * channels, device=images.device).view(batch, channels, 1)
    rows = planes * padded_height + top[:, None, None] + torch.arange(height, device=images.device)
    starts = rows * padded_width + left[:, None, None]  # (B, C, H)
    return runs.index_select(0, starts.flatten()).view(images.shape)


def crop_offsets(
    padding: int, seed: int, epoch: int, index: Tensor, view: int = 0
) -> tuple[Tensor, Tensor]:
    """Top and left of each window in the padded image, (B,) int64 in 0 … 2·padding."""
    bits = keyed_random.bits(_CROP, seed, epoch, index, view)
    side = 2 * padding + 1  # two 31-bit fields of one draw: the bias is below side / 2³¹
    return (bits >> 32) % side, (bits & 0x7FFFFFFF) % side


def random_flip(images: Tensor, seed: int, epoch: int, index: Tensor, view: int = 0) -> Tensor:
    """Flip about half of the images left to right; arguments as for `random_crop`."""
    flipped = flip_mask(seed, epoch, index, view).long()
    choice = torch.arange(len(index), device=images.device) + flipped * len(index)
    both = torch.cat([images, images.flip(3)])
    return both.index_select(0, choice)  # `where` takes thrice as long


def flip_mask(seed: int, epoch: int, index: Tensor, view: int = 0) -> Tensor:
    """Which samples are flipped, (B,) bool."""
    return keyed_random.bits(_FLIP, seed, epoch, index, view) >= 1 << 62


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Normalize bytes to about zero mean and unit variance: (x / 255 − mean) / std.

    Args:
        images: (B, C, H, W) or (B, C, T, H, W) uint8.
        mean, std: C numbers each, of pixels in [0, 1].

    Returns:
        float32 of that shape, contiguous or channels_last as the images are.
    """
    scale = [1 / (255 * s) for s in std]
    shift = [-m / s for m, s in zip(mean, std, strict=True)]
    # two roundings, whatever the batch: a fused operation may round otherwise at a batch's tail
    return images.float().mul_(_channels(scale, images)).add_(_channels(shift, images))


def _channels(values: list[float], images: Tensor) -> Tensor:
    """One number per channel, in the images' memory format, since mixing formats is slow."""
    numbers = torch.tensor(values).to(images.device, non_blocking=True)
    numbers = numbers.view(1, -1, *[1] * (images.dim() - 2))
    if images.is_contiguous():
        return numbers
    return channels_last(numbers.expand(1, *images.shape[1:]))


def resized_crop_box(
    seed: int,
    epoch: int,
    index: Tensor,
    height: int,
    width: int,
    scale: tuple[float, float] = SCALE,
    ratio: tuple[float, float] = RATIO,
    view: int = 0,
) -> Tensor:
    """The box of a random resized crop, as torchvision's `RandomResizedCrop` draws it.

    Ten attempts at a box of random area and aspect that fits; failing that the largest centered box
    whose aspect is allowed.

    Args:
        seed, epoch, view: keys of the draw.
        index: (B,) int64, of each sample in the training set.
        height, width: of the images.
        scale: range of the box's fraction of the area, uniform.
        ratio: range of width / height, uniform in its logarithm.

    Returns:
        (B, 4) int64: top, left, height, width.
    """
    boxes, fits = fitting_boxes(_BOX, seed, epoch, index, height, width, scale, ratio, view)
    return torch.where(fits[:, None], boxes, boxes.new_tensor(_center(height, width, ratio)))


def fitting_boxes(
    purpose: int,
    seed: int,
    epoch: int,
    index: Tensor,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    view: int = 0,
) -> tuple[Tensor, Tensor]:
    """The first of ten random boxes that fits; arguments as for `resized_crop_box`.

    Returns:
        (B, 4) int64: top, left, height, width; and (B,) bool, whether any fits.
    """
    attempts = torch.arange(4 * _ATTEMPTS, device=index.device).view(4, 1, _ATTEMPTS)
    draw = keyed_random.uniform(purpose, seed, epoch, index[:, None], view, attempts).double()
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draw[0])  # (B, attempts)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * draw[1]).exp()
    h, w = (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()
    fits = (h > 0) & (h <= height) & (w > 0) & (w <= width)
    top, left = ((height - h + 1) * draw[2]).long(), ((width - w + 1) * draw[3]).long()
    boxes = torch.stack([top, left, h, w], -1)  # (B, attempts, 4)
    first = boxes[torch.arange(len(index), device=index.device), fits.int().argmax(1)]
    return first, fits.any(1)


def _center(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Crop a box of each image and resize it bilinearly to the image's size.

    Args:
        images: (B, C, H, W) uint8.
        boxes: (B, 4) int64 from `resized_crop_box`.

    Returns:
        (B, C, H, W) uint8.
    """
    height, width = images.shape[2:]
    y = _sample_grid(boxes[:, 0], boxes[:, 2], height)[:, :, None].expand(-1, -1, width)
    x = _sample_grid(boxes[:, 1], boxes[:, 3], width)[:, None, :].expand(-1, height, -1)
    grid = torch.stack([x, y], -1)  # (B, H, W, 2)
    cut = F.grid_sample(images.float(), grid, "bilinear", "border", align_corners=True)
    return cut.round_().clamp_(0, 255).to(torch.uint8)


def _sample_grid(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Sampling positions along one axis, (B, size) in [−1, 1], clamped to the box."""
    center = torch.arange(size, device=start.device) + 0.5
    position = (center * length[:, None] / size - 0.5).clamp(min=0).minimum(length[:, None] - 1.0)
    return (position + start[:, None]) * (2 / max(size - 1, 1)) - 1
