"""Windows of images, drawn by keys, and the images and masks that are seen in them."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core import IGNORE, keyed_random

_ZOOM, _SCALE_AND_SHIFT = map(keyed_random.purpose, ("zoom", "scale and shift"))
GRAY = 114
"""Padding value around images; about the mean of photographs."""


def zoom_box(
    seed: int, epoch: int, index: Tensor, height: int, width: int, max_zoom: float, view: int = 0
) -> Tensor:
    """The window of a random zoom, as semantic segmentation is trained.

    The zoom factor is log-uniform in 1 / max_zoom … max_zoom. A window smaller than the image lies
    anywhere in it; a larger one contains the image anywhere in itself.

    Args:
        seed, epoch, view: keys of the draw.
        index: (B,) int64, of each sample in the training set.
        height, width: of the images.
        max_zoom: > 1.

    Returns:
        (B, 4) float32: top, left, height, width in pixels.
    """
    draws = torch.arange(3, device=index.device)[:, None]
    draw = keyed_random.uniform(_ZOOM, seed, epoch, index, view, draws)  # (3, B)
    factor = torch.exp(math.log(max_zoom) * (2 * draw[0] - 1))
    box_height, box_width = height / factor, width / factor
    top, left = (height - box_height) * draw[1], (width - box_width) * draw[2]
    return torch.stack([top, left, box_height, box_width], 1)


def jittered_window(
    seed: int,
    epoch: int,
    index: Tensor,
    height: int,
    width: int,
    scale_jitter: float,
    shift: float,
    view: int = 0,
) -> Tensor:
    """The window of a random scale and shift, as YOLOv5 trains (release 5.0,
    https://github.com/ultralytics/yolov5, `random_perspective`).

    Images are scaled about their center by a factor that is uniform in 1 − scale_jitter …
    1 + scale_jitter, and then shifted along each axis by a part of its side that is uniform in
    −shift … shift.

    Args:
        seed, epoch, view: keys of the draw.
        index: (B,) int64, of each sample in the training set.
        height, width: of the images.
        scale_jitter: in [0, 1).
        shift: in [0, 1].

    Returns:
        (B, 4) float32: top, left, height, width in pixels.
    """
    draws = torch.arange(3, device=index.device)[:, None]
    draw = 2 * keyed_random.uniform(_SCALE_AND_SHIFT, seed, epoch, index, view, draws) - 1  # (3, B)
    factor = 1 + scale_jitter * draw[0]
    box_height, box_width = height / factor, width / factor
    top = (height - box_height) / 2 - shift * draw[1] * box_height
    left = (width - box_width) / 2 - shift * draw[2] * box_width
    return torch.stack([top, left, box_height, box_width], 1)


def zoom_images(images: Tensor, boxes: Tensor) -> Tensor:
    """Crop windows and resize them to the images' size, bilinear, gray outside.

    Args:
        images: (B, C, H, W) uint8.
        boxes: (B, 4) from `zoom_box` or `jittered_window`.

    Returns:
        (B, C, H, W) uint8.
    """
    height, width = images.shape[2:]
    top, left, box_height, box_width = boxes.unbind(1)
    y = sample_positions(top, box_height, height)[:, :, None].expand(-1, -1, width)
    x = sample_positions(left, box_width, width)[:, None, :].expand(-1, height, -1)
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1)  # (B, H, W, 2)
    centered = images.float() - GRAY  # so that zero padding is gray
    zoomed = F.grid_sample(centered, grid, "bilinear", "zeros", align_corners=False) + GRAY
    return zoomed.round_().clamp_(0, 255).to(torch.uint8)


def zoom_masks(
    masks: Tensor, top: Tensor, left: Tensor, box_height: Tensor, box_width: Tensor
) -> Tensor:
    """Crop windows and resize them to the masks' size, nearest-neighbor, `IGNORE` outside.

    Args:
        masks: (B, H, W) uint8.
        top, left, box_height, box_width: (B,) in pixels.
    """
    height, width = masks.shape[1:]
    y = sample_positions(top, box_height, height).floor().long()
    x = sample_positions(left, box_width, width).floor().long()
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
    index = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None]
    labels = masks.flatten(1).gather(1, index.flatten(1)).view(masks.shape)
    return torch.where(inside, labels, IGNORE)


def sample_positions(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Input coordinate of each output pixel's center along one axis, (B, size) in pixels."""
    center = torch.arange(size, device=start.device) + 0.5
    return start[:, None] + center * length[:, None] / size
