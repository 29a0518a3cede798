"""A picture or video as the input of a network, prepared as in training, and the way back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core import IGNORE, ConfigError
from .clips import ClipFiles, ClipLength, InMemoryClips
from .image_data import ImageData
from .images import ImageFiles
from .letterbox import LetterboxedFiles
from .open_image import open_rgb
from .read_video import read_frames, video_length
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
        pixels: (C, H, W) uint8, not normalized; of a video its central clip, (C, T, H, W).
        placement: of the picture, or of each frame, in them.
    """

    pixels: Tensor
    placement: Placement


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes the input of a network.

    Attributes:
        shape: (C, H, W) of the input, or (C, T, H, W) of a clip.
        fit: a name in `FITS`.
        resize_ratio: of a picture that is cropped, see `ImageFiles`.
        clip_stride: of a clip, see `ClipLength`.
    """

    shape: tuple[int, ...]
    fit: str
    resize_ratio: float = 1.0
    clip_stride: int = 1

    @property
    def clip(self) -> ClipLength | None:
        """The frames of a clip; None where the input is a picture."""
        return ClipLength(self.shape[1], self.clip_stride) if len(self.shape) == 4 else None

    def to_fields(self) -> dict[str, Any]:
        """The fields for JSON; those of clips where it is of clips."""
        fields = asdict(self)
        if not self.clip:
            del fields["clip_stride"]
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The record whose fields these are, as JSON has them.

        Raises:
            ValueError, LookupError, TypeError: they are of something else.
        """
        shape = tuple(map(int, fields["shape"]))
        if len(shape) not in (3, 4):
            raise ValueError(f"a shape of {len(shape)} sides")
        fit = FITS[FITS.index(fields["fit"])]
        stride = int(fields.get("clip_stride", 1))
        return cls(shape, fit, float(fields["resize_ratio"]), stride)

    def read(self, picture: str | Path | Image.Image) -> PreparedPicture:
        """A picture from its file or from memory, or a clip of a video's file or folder of frames.

        Raises:
            DataError: the file is missing or no readable picture or video.
            ConfigError: the network takes other channels than a picture has.
        """
        channels = self.shape[0]
        if channels not in (1, 3):
            raise ConfigError(
                f"the network takes images of {channels} channels, and a picture has 1 or 3; give "
                "your images to it in Python"
            )
        source = picture if isinstance(picture, Image.Image) else str(picture)
        frames = [open_rgb(source)] if self.clip is None else self._frames(str(picture), self.clip)
        size = frames[0].height, frames[0].width
        fitted = [self._files.fit_to_size(frame) for frame in frames]
        pixels = fitted[0] if self.clip is None else torch.stack(fitted, 1)
        return PreparedPicture(pixels, Placement(size, self._files.area(*size)))

    def _frames(self, path: str, clip: ClipLength) -> list[Image.Image]:
        """The frames of the central clip of a video."""
        [numbers] = clip.central(torch.tensor([video_length(path)])).tolist()
        frames = read_frames(path, sorted(set(numbers)))
        return [frames[number] for number in numbers]

    @cached_property
    def _files(self) -> ImageFiles:
        """A set without files, which knows how to fit."""
        channels, *_, height, width = self.shape
        size, labels = (height, width), torch.zeros(0, dtype=torch.int64)
        if self.fit == LetterboxedFiles.fit:
            no_sizes = np.zeros((0, 2), dtype=np.int64)
            boxes = Boxes(torch.zeros(0, 0, 5), size)
            return LetterboxedFiles([], boxes, no_sizes).with_channels(channels)
        kind = _StretchedFiles if self.fit == _StretchedFiles.fit else ImageFiles
        return kind([], labels, size, self.resize_ratio).with_channels(channels)


def preparation_of(data: ImageData) -> Preparation:
    """How pictures are prepared for networks that are trained on these data."""
    train = data.train
    stride = train.clip.stride if isinstance(train, ClipFiles | InMemoryClips) else 1
    if isinstance(train, ImageFiles):
        return Preparation(train.shape, train.fit, train.resize_ratio, stride)
    return Preparation(train.shape, data.fit, data.resize_ratio, stride)
