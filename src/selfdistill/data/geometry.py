"""Geometric augmentation of images, masks and boxes by the same random draws."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core import IGNORE, keyed_random
from .augment import (
    crop_offsets,
    flip_mask,
    random_crop,
    random_flip,
    resized_crop,
    resized_crop_box,
)
from .auto_augment import AutoAugment

_ZOOM = keyed_random.purpose("zoom")
GRAY = 114
"""Padding value around images; about the mean of photographs."""


class GeometricAugmentation(NamedTuple):
    """Random crops, zooms and flips, each a function of (seed, epoch, sample, view).

    The order is: a resized crop or a zoom, then the padded crop, then the flip. All frames of a
    clip are moved alike.

    Attributes:
        seed: key of every draw.
        crop_padding: of the random crop in pixels; 0 for none.
        flip: whether to flip half of the images left to right.
        resized_crop: whether to take random resized crops; masks and boxes do not follow them.
        max_zoom: largest zoom factor; the smallest is its inverse. 1 for none.
        auto: RandAugment or TrivialAugment behind all that; boxes do not follow it.
    """

    seed: int
    crop_padding: int = 0
    flip: bool = False
    resized_crop: bool = False
    max_zoom: float = 1.0
    auto: AutoAugment | None = None

    def crop_or_zoom(self, images: Tensor, epoch: int, index: Tensor, view: int = 0) -> Tensor:
        """First stage, for images in memory: resized crop or zoom, (B, C, H, W) uint8."""
        planes, (height, width) = _planes(images), images.shape[-2:]
        if self.resized_crop:
            boxes = resized_crop_box(self.seed, epoch, index, height, width, view=view)
            planes = resized_crop(planes, boxes)
        elif self.max_zoom > 1:
            planes = zoom_images(planes, self._zoom_boxes(epoch, index, height, width, view))
        return planes.view(images.shape)

    def pad_and_flip(self, images: Tensor, epoch: int, index: Tensor, view: int = 0) -> Tensor:
        """Second stage: padded crop, flip and automatic augmentation, (B, C, H, W) uint8."""
        planes = random_crop(_planes(images), self.crop_padding, self.seed, epoch, index, view)
        planes = random_flip(planes, self.seed, epoch, index, view) if self.flip else planes
        images = planes.view(images.shape)
        return self.auto.images(images, epoch, index, view) if self.auto else images

    def transform_masks(self, masks: Tensor, epoch: int, index: Tensor) -> Tensor:
        """Both stages for the masks of the first view, (B, H, W) uint8.

        Pixels from outside the image become `IGNORE`; sampling is nearest-neighbor.
        """
        height, width = masks.shape[1:]
        if self.max_zoom > 1:
            boxes = self._zoom_boxes(epoch, index, height, width, 0)
            masks = zoom_masks(masks, *boxes.double().unbind(1))
        if self.crop_padding:
            top, left = crop_offsets(self.crop_padding, self.seed, epoch, index)
            sides = (torch.full_like(top, side) for side in (height, width))
            masks = zoom_masks(masks, top - self.crop_padding, left - self.crop_padding, *sides)
        if self.flip:
            masks = random_flip(masks[:, None], self.seed, epoch, index)[:, 0]
        return self.auto.masks(masks, epoch, index) if self.auto else masks

    def transform_boxes(
        self, boxes: Tensor, epoch: int, index: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Both stages for boxes of the first view, (B, N, 4) as x1, y1, x2, y2 in pixels.

        Each stage clips them to the image.

        Returns:
            The clipped boxes, and (B, N) the fraction of their area that is left.
        """
        height, width = size
        limit = boxes.new_tensor([width, height])
        corners = boxes.view(*boxes.shape[:2], 2, 2)
        full_area = _area(corners)
        if self.max_zoom > 1:
            top, left, box_height, box_width = self._zoom_boxes(
                epoch, index, height, width, 0
            ).unbind(1)
            start = torch.stack([left, top], -1)  # (B, 2)
            side = torch.stack([box_width, box_height], -1)
            scale = (limit / side)[:, None, None]
            corners = (corners - start[:, None, None]) * scale
            full_area, corners = _area(corners), corners.clamp(min=0).minimum(limit)
        if self.crop_padding:
            top, left = crop_offsets(self.crop_padding, self.seed, epoch, index)
            corners = corners + (self.crop_padding - torch.stack([left, top], -1))[:, None, None]
            corners = corners.clamp(min=0).minimum(limit)
        if self.flip:
            flipped = torch.stack([width - corners[..., [1, 0], 0], corners[..., 1]], -1)
            is_flipped = flip_mask(self.seed, epoch, index)[:, None, None, None]
            corners = torch.where(is_flipped, flipped, corners)
        return corners.reshape(boxes.shape), _area(corners) / full_area.clamp(min=1e-6)

    def _zoom_boxes(self, epoch: int, index: Tensor, height: int, width: int, view: int) -> Tensor:
        return zoom_box(self.seed, epoch, index, height, width, self.max_zoom, view=view)


def _planes(images: Tensor) -> Tensor:
    """Images as they are, and clips with their times as channels, (B, C·T, H, W)."""
    return images.flatten(1, -3)


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


def zoom_images(images: Tensor, boxes: Tensor) -> Tensor:
    """Crop windows and resize them to the images' size, bilinear, gray outside.

    Args:
        images: (B, C, H, W) uint8.
        boxes: (B, 4) from `zoom_box`.

    Returns:
        (B, C, H, W) uint8.
    """
    height, width = images.shape[2:]
    top, left, box_height, box_width = boxes.unbind(1)
    y = _sample_positions(top, box_height, height)[:, :, None].expand(-1, -1, width)
    x = _sample_positions(left, box_width, width)[:, None, :].expand(-1, height, -1)
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
    y = _sample_positions(top, box_height, height).floor().long()
    x = _sample_positions(left, box_width, width).floor().long()
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
    index = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None]
    labels = masks.flatten(1).gather(1, index.flatten(1)).view(masks.shape)
    return torch.where(inside, labels, IGNORE)


def _sample_positions(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Input coordinate of each output pixel's center along one axis, (B, size) in pixels."""
    center = torch.arange(size, device=start.device) + 0.5
    return start[:, None] + center * length[:, None] / size


def _area(corners: Tensor) -> Tensor:
    """(B, N, 2, 2) corners as (x, y) to (B, N)."""
    return (corners[..., 1, :] - corners[..., 0, :]).prod(-1)
