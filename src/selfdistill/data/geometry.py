"""Geometric augmentation of images, masks and boxes by the same random draws."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from .augment import (
    crop_offsets,
    flip_mask,
    random_crop,
    random_flip,
    resized_crop,
    resized_crop_box,
)
from .auto_augment import AutoAugment
from .mosaic import Mosaic
from .zoom import jittered_window, zoom_box, zoom_images, zoom_masks

_MIN_VISIBLE = 0.1  # fraction of a box's area that must stay inside the image
_MIN_SIDE, _MAX_RATIO = 2.0, 100.0  # pixels, and the longer side over the shorter one


class GeometricAugmentation(NamedTuple):
    """Random crops, zooms and flips, each a function of (seed, epoch, sample, view).

    The order is: a mosaic, a resized crop or a zoom, then the padded crop, then the flip. All
    frames of a clip are moved alike.

    Attributes:
        seed: key of every draw.
        crop_padding: of the random crop in pixels; 0 for none.
        flip: whether to flip half of the images left to right.
        resized_crop: whether to take random resized crops; masks and boxes do not follow them.
        max_zoom: largest zoom factor; the smallest is its inverse. 1 for none.
        auto: RandAugment or TrivialAugment behind all that; boxes do not follow it.
        scale_jitter, shift: of a random scale and shift in place of the zoom, see
            `zoom.jittered_window`; 0 for none.
        mosaic: four pictures in one; None for none.
    """

    seed: int
    crop_padding: int = 0
    flip: bool = False
    resized_crop: bool = False
    max_zoom: float = 1.0
    auto: AutoAugment | None = None
    scale_jitter: float = 0.0
    shift: float = 0.0
    mosaic: Mosaic | None = None

    def of_samples(self, rows: Tensor) -> Self:
        """The same for a batch of these samples, (B,) int64 on the CPU, see `AutoAugment`."""
        return self._replace(auto=self.auto._replace(samples=rows)) if self.auto else self

    def mosaic_in(self, epoch: int) -> Mosaic | None:
        """The mosaics of an epoch, if it has any."""
        return self.mosaic if self.mosaic and self.mosaic.active(epoch) else None

    def windows(
        self, epoch: int, index: Tensor, height: int, width: int, view: int = 0
    ) -> Tensor | None:
        """What is seen of each image, (B, 4) float32: top, left, height, width; None is all."""
        keys = self.seed, epoch, index, height, width
        if self.scale_jitter or self.shift:
            return jittered_window(*keys, self.scale_jitter, self.shift, view=view)
        return zoom_box(*keys, self.max_zoom, view=view) if self.max_zoom > 1 else None

    def mosaics(
        self, pictures: Tensor, places: Tensor, epoch: int, index: Tensor, view: int = 0
    ) -> Tensor:
        """First stage of an epoch with mosaics, see `Mosaic.images`."""
        mosaic = self.mosaic
        assert mosaic
        windows = self._mosaic_windows(mosaic, epoch, index, view)
        return mosaic.images(pictures, places, mosaic.layout(epoch, index, view), windows)

    def crop_or_zoom(self, images: Tensor, epoch: int, index: Tensor, view: int = 0) -> Tensor:
        """First stage, for images in memory: resized crop or zoom, (B, C, H, W) uint8."""
        planes, (height, width) = _planes(images), images.shape[-2:]
        if self.resized_crop:
            boxes = resized_crop_box(self.seed, epoch, index, height, width, view=view)
            planes = resized_crop(planes, boxes)
        elif (windows := self.windows(epoch, index, height, width, view)) is not None:
            planes = zoom_images(planes, windows)
        return planes.view(images.shape)

    def pad_and_flip(self, images: Tensor, epoch: int, index: Tensor, view: int = 0) -> Tensor:
        """Second stage: padded crop, flip and automatic augmentation, (B, C, H, W) uint8."""
        planes = random_crop(_planes(images), self.crop_padding, self.seed, epoch, index, view)
        planes = random_flip(planes, self.seed, epoch, index, view) if self.flip else planes
        images = planes.view(images.shape)
        return self.auto.images(images, epoch, index, view) if self.auto else images

    def transform_masks(self, masks: Tensor, epoch: int, index: Tensor) -> Tensor:
        """Both stages for the masks of the first view, (B, H, W) uint8, of all masks (N, H, W).

        Pixels from outside the image become `IGNORE`; sampling is nearest-neighbor.
        """
        height, width = masks.shape[1:]
        if mosaic := self.mosaic_in(epoch):
            layout = mosaic.layout(epoch, index)
            masks = mosaic.masks(masks, layout, self._mosaic_windows(mosaic, epoch, index))
        else:
            masks = masks.index_select(0, index)
            windows = self.windows(epoch, index, height, width)
            if windows is not None:
                masks = zoom_masks(masks, *windows.double().unbind(1))
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

        Those of a mosaic's tiles are given where the mosaic has them, see `MosaicLayout`. Each
        stage clips them to the image. Those that lose over nine tenths of their area are lost.
        With mosaics, or a random scale or shift, YOLOv5's rule loses also those that have a side of
        2 pixels or less, or one that is a hundred times the other (`box_candidates`).

        Returns:
            The clipped boxes, and (B, N) bool, which of them are kept.
        """
        height, width = size
        limit = boxes.new_tensor([width, height])
        corners = boxes.view(*boxes.shape[:2], 2, 2)
        full_area = _area(corners)
        windows = self.windows(epoch, index, height, width)
        if windows is not None:
            top, left, box_height, box_width = windows.unbind(1)
            start = torch.stack([left, top], -1)  # (B, 2)
            side = torch.stack([box_width, box_height], -1)
            scale = (limit / side)[:, None, None]
            corners = (corners - start[:, None, None]) * scale
            full_area, corners = _area(corners), corners.clamp(min=0).minimum(limit)
        elif self.mosaic:
            corners = corners.clamp(min=0).minimum(limit)
        if self.crop_padding:
            top, left = crop_offsets(self.crop_padding, self.seed, epoch, index)
            corners = corners + (self.crop_padding - torch.stack([left, top], -1))[:, None, None]
            corners = corners.clamp(min=0).minimum(limit)
        if self.flip:
            flipped = torch.stack([width - corners[..., [1, 0], 0], corners[..., 1]], -1)
            is_flipped = flip_mask(self.seed, epoch, index)[:, None, None, None]
            corners = torch.where(is_flipped, flipped, corners)
        kept = _area(corners) / full_area.clamp(min=1e-6) >= _MIN_VISIBLE
        if self.mosaic or self.scale_jitter or self.shift:
            kept &= _is_well_formed(corners)
        return corners.reshape(boxes.shape), kept

    def _mosaic_windows(self, mosaic: Mosaic, epoch: int, index: Tensor, view: int = 0) -> Tensor:
        """As `windows`, all of the image where they are None."""
        windows = self.windows(epoch, index, *mosaic.size, view=view)
        whole = torch.tensor([0.0, 0.0, *mosaic.size], device=index.device)
        return whole.expand(len(index), 4) if windows is None else windows


def _planes(images: Tensor) -> Tensor:
    """Images as they are, and clips with their times as channels, (B, C·T, H, W)."""
    return images.flatten(1, -3)


def _area(corners: Tensor) -> Tensor:
    """(B, N, 2, 2) corners as (x, y) to (B, N)."""
    return (corners[..., 1, :] - corners[..., 0, :]).prod(-1)


def _is_well_formed(corners: Tensor) -> Tensor:
    """Which boxes (B, N, 2, 2) are neither too small nor too long, (B, N) bool."""
    sides = corners[..., 1, :] - corners[..., 0, :]
    shorter, longer = sides.amin(-1), sides.amax(-1)
    return (shorter > _MIN_SIDE) & (longer < _MAX_RATIO * shorter)
