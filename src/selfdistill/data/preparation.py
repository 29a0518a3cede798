"""A picture as the input of a network, brought to size as in training, and the way back."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ..core import IGNORE, ConfigError
from .image_data import ImageData
from .images import ImageFiles
from .letterbox import LetterboxedFiles
from .targets import Boxes


class _StretchedFiles(ImageFiles):
    """Image files resized to one size, whatever their shape."""

    fit = "stretch"

    def area(self, image_height: int, image_width: int) -> tuple[int, int, int, int]:
        """All of a fetched image."""
        return 0, 0, self.shape[1], self.shape[2]


FITS = ("crop", "letterbox", "stretch")
"""Ways to bring a picture to size: covered and center-cropped, framed in gray, or stretched."""


class Placement(NamedTuple):
    """Where a picture lies in the input of the network.

    Attributes:
        size: height and width of the picture.
        area: top, left, height and width of the whole picture, in pixels of the input.
    """

    size: tuple[int, int]
    area: tuple[int, int, int, int]

    def boxes_in_picture(self, boxes: Tensor) -> Tensor:
        """Boxes (D, 4) of the input in pixels of the picture, clipped to it."""
        (rows, columns), (top, left, height, width) = self.size, self.area
        scale = boxes.new_tensor([columns / width, rows / height] * 2)
        moved = (boxes - boxes.new_tensor([left, top] * 2)) * scale
        limit = boxes.new_tensor([columns, rows] * 2)
        return moved.clamp(min=0).minimum(limit)

    def mask_in_picture(self, mask: Tensor) -> Tensor:
        """A mask (H, W) of the input at the picture's size; `IGNORE` where it was cut off."""
        (rows, columns), (top, left, height, width) = self.size, self.area
        y, inside_y = _sources(rows, top, height, mask.shape[0])
        x, inside_x = _sources(columns, left, width, mask.shape[1])
        inside = inside_y[:, None] & inside_x
        return torch.where(inside, mask[y][:, x], mask.new_tensor(IGNORE))


def _sources(count: int, start: int, length: int, limit: int) -> tuple[Tensor, Tensor]:
    """The nearest pixel of the input for each of a picture's rows, and whether there is one."""
    index = ((torch.arange(count) + 0.5) * (length / count) + start).floor().long()
    return index.clamp(0, limit - 1), (index >= 0) & (index < limit)


class PreparedPicture(NamedTuple):
    """A picture as the network takes it.

    Attributes:
        pixels: (C, H, W) uint8, not normalized.
        placement: of the picture in them.
    """

    pixels: Tensor
    placement: Placement


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes the input of a network.

    Attributes:
        shape: (C, H, W) of the input.
        fit: a name in `FITS`.
        resize_ratio: of a picture that is cropped, see `ImageFiles`.
    """

    shape: tuple[int, int, int]
    fit: str
    resize_ratio: float = 1.0

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The record whose fields these are, as JSON has them.

        Raises:
            ValueError, LookupError, TypeError: they are of something else.
        """
        channels, height, width = map(int, fields["shape"])
        fit = FITS[FITS.index(fields["fit"])]
        return cls((channels, height, width), fit, float(fields["resize_ratio"]))

    def read(self, path: str | Path) -> PreparedPicture:
        """A picture from its file.

        Raises:
            DataError: the file is missing or no readable picture.
            ConfigError: the network takes other channels than a picture has.
        """
        channels = self.shape[0]
        if channels not in (1, 3):
            raise ConfigError(
                f"the network takes images of {channels} channels, and a picture has 1 or 3; give "
                "your images to it in Python"
            )
        image = ImageFiles([path], torch.zeros(1, dtype=torch.int64), self.shape[1:]).open(0)
        size = image.height, image.width
        return PreparedPicture(
            self._files.fit_to_size(image), Placement(size, self._files.area(*size))
        )

    @cached_property
    def _files(self) -> ImageFiles:
        """A set without files, which knows how to fit."""
        channels = self.shape[0]
        size, labels = self.shape[1:], torch.zeros(0, dtype=torch.int64)
        if self.fit == LetterboxedFiles.fit:
            no_sizes = np.zeros((0, 2), dtype=np.int64)
            boxes = Boxes(torch.zeros(0, 0, 5), size)
            return LetterboxedFiles([], boxes, no_sizes).with_channels(channels)
        kind = _StretchedFiles if self.fit == _StretchedFiles.fit else ImageFiles
        return kind([], labels, size, self.resize_ratio).with_channels(channels)


def preparation_of(data: ImageData) -> Preparation:
    """How pictures are prepared for networks that are trained on these data."""
    if isinstance(data.train, ImageFiles):
        return Preparation(data.train.shape, data.train.fit, data.train.resize_ratio)
    return Preparation(data.train.shape, data.fit, data.resize_ratio)
