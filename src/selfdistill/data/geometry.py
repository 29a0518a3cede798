"""Where each pixel of a training image goes, and its labels with it: one draw moves both."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core import IGNORE, keyed_random
from .augment import crop_offsets, flipped, random_crop, random_flip, resized_crop, resized_crop_box

_ZOOM = keyed_random.purpose("zoom")
GRAY = 114
"""What surrounds a picture that does not fill its frame: about the mean of photographs."""


class Geometry(NamedTuple):
    """The random cuts and mirrors of a run, each a function of (seed, epoch, sample, view).

    The order is: a part of the image (`resized_crop`) or a zoom, then the padded crop, then the
    mirror.

    Attributes:
        seed: key of every draw.
        crop: padding of the random crop in pixels; 0 for none.
        flip: whether to mirror half of the images.
        resized_crop: whether to cut parts of random size and shape; labels of pixels do not follow.
        zoom: largest enlargement; its inverse is the smallest one. 1 for none.
    """

    seed: int
    crop: int = 0
    flip: bool = False
    resized_crop: bool = False
    zoom: float = 1.0

    def cut(self, images: Tensor, epoch: int, index: Tensor, view: int = 0) -> Tensor:
        """The first part, for images in memory: (B, C, H, W) uint8 to the same."""
        height, width = images.shape[2:]
        if self.resized_crop:
            boxes = resized_crop_box(self.seed, epoch, index, height, width, view=view)
            return resized_crop(images, boxes)
        if self.zoom > 1:
            return enlarged(images, self._boxes(epoch, index, height, width, view))
        return images

    def shift(self, images: Tensor, epoch: int, index: Tensor, view: int = 0) -> Tensor:
        """The second part: padded crop and mirror, (B, C, H, W) uint8 to the same."""
        images = random_crop(images, self.crop, self.seed, epoch, index, view)
        return random_flip(images, self.seed, epoch, index, view) if self.flip else images

    def masks(self, masks: Tensor, epoch: int, index: Tensor) -> Tensor:
        """What both do to the masks of the first view: (B, H, W) uint8 to the same.

        What comes from outside the image is `IGNORE`; no class is mixed with another.
        """
        height, width = masks.shape[1:]
        if self.zoom > 1:
            boxes = self._boxes(epoch, index, height, width, 0)
            masks = gathered(masks, *boxes.double().unbind(1))
        if self.crop:
            top, left = crop_offsets(self.crop, self.seed, epoch, index)
            sides = (torch.full_like(top, side) for side in (height, width))
            masks = gathered(masks, top - self.crop, left - self.crop, *sides)
        return random_flip(masks[:, None], self.seed, epoch, index)[:, 0] if self.flip else masks

    def boxes(
        self, boxes: Tensor, epoch: int, index: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """What both do to boxes of the first view: (B, N, 4) as x1, y1, x2, y2 in pixels.

        They are clipped by each cut: what has left the image does not come back.

        Returns:
            The boxes as far as they are in sight, and (B, N) the share of their area that is.
        """
        height, width = size
        limit = boxes.new_tensor([width, height])
        corners = boxes.view(*boxes.shape[:2], 2, 2)
        whole = _area(corners)
        if self.zoom > 1:
            top, left, tall, wide = self._boxes(epoch, index, height, width, 0).unbind(1)
            start, side = torch.stack([left, top], -1), torch.stack([wide, tall], -1)  # (B, 2)
            scale = (limit / side)[:, None, None]
            corners = (corners - start[:, None, None]) * scale
            whole, corners = _area(corners), corners.clamp(min=0).minimum(limit)
        if self.crop:
            top, left = crop_offsets(self.crop, self.seed, epoch, index)
            corners = corners + (self.crop - torch.stack([left, top], -1))[:, None, None]
            corners = corners.clamp(min=0).minimum(limit)
        if self.flip:
            mirrored = torch.stack([width - corners[..., [1, 0], 0], corners[..., 1]], -1)
            chosen = flipped(self.seed, epoch, index)[:, None, None, None]
            corners = torch.where(chosen, mirrored, corners)
        return corners.reshape(boxes.shape), _area(corners) / whole.clamp(min=1e-6)

    def _boxes(self, epoch: int, index: Tensor, height: int, width: int, view: int) -> Tensor:
        return zoom_box(self.seed, epoch, index, height, width, self.zoom, view=view)


def zoom_box(
    seed: int, epoch: int, index: Tensor, height: int, width: int, zoom: float, view: int = 0
) -> Tensor:
    """The part of the plane that is to fill an image, as semantic segmentation is trained.

    The factor is uniform in its logarithm between 1 / zoom and zoom. A part that is smaller than
    the image lies anywhere in it; a larger one has the image anywhere in itself.

    Args:
        seed, epoch, view: keys of the draw.
        index: (B,) int64, place of each sample in the training set.
        height, width: of the images.
        zoom: > 1.

    Returns:
        (B, 4) float32: top, left, height, width in pixels.
    """
    draws = torch.arange(3, device=index.device)[:, None]
    draw = keyed_random.uniform(_ZOOM, seed, epoch, index, view, draws)  # (3, B)
    factor = torch.exp(math.log(zoom) * (2 * draw[0] - 1))
    tall, wide = height / factor, width / factor
    return torch.stack([(height - tall) * draw[1], (width - wide) * draw[2], tall, wide], 1)


def enlarged(images: Tensor, boxes: Tensor) -> Tensor:
    """Parts of images brought to the images' size, bilinear, gray outside.

    Args:
        images: (B, C, H, W) uint8.
        boxes: (B, 4) from `zoom_box`.

    Returns:
        (B, C, H, W) uint8.
    """
    height, width = images.shape[2:]
    top, left, tall, wide = boxes.unbind(1)
    y = _places(top, tall, height)[:, :, None].expand(-1, -1, width)
    x = _places(left, wide, width)[:, None, :].expand(-1, height, -1)
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1)  # (B, H, W, 2)
    above = images.float() - GRAY  # outside is 0
    cut = F.grid_sample(above, grid, "bilinear", "zeros", align_corners=False) + GRAY
    return cut.round_().clamp_(0, 255).to(torch.uint8)


def gathered(masks: Tensor, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor) -> Tensor:
    """Parts of masks brought to the masks' size, each pixel from its nearest, `IGNORE` outside.

    Args:
        masks: (B, H, W) uint8.
        top, left, tall, wide: (B,) in pixels.
    """
    height, width = masks.shape[1:]
    y, x = _places(top, tall, height).floor().long(), _places(left, wide, width).floor().long()
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
    place = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None]
    found = masks.flatten(1).gather(1, place.flatten(1)).view(masks.shape)
    return torch.where(inside, found, IGNORE)


def _places(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Where the center of each output pixel comes from along one axis, (B, size) in pixels."""
    center = torch.arange(size, device=start.device) + 0.5
    return start[:, None] + center * length[:, None] / size


def _area(corners: Tensor) -> Tensor:
    """(B, N, 2, 2), two corners of x and y each, to (B, N)."""
    return (corners[..., 1, :] - corners[..., 0, :]).prod(-1)
