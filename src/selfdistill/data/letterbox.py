"""Letterboxing: images resized into one frame, their shape kept, and their boxes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ..core import DataError
from .images import ImageFiles
from .open_image import opened, orientation_of
from .targets import Boxes
from .zoom import GRAY

IntArray = npt.NDArray[np.int64]


class LetterboxedFiles(ImageFiles):
    """Image files with boxes, letterboxed into one size with gray padding.

    Args:
        paths: the N files.
        targets: the boxes, in pixels of the frame; its size is that of a fetched image.
        annotated_sizes: (N, 2) int64, height and width of each image in its annotation.
    """

    fit = "letterbox"

    def __init__(
        self, paths: Sequence[str | Path], targets: Boxes, annotated_sizes: IntArray
    ) -> None:
        super().__init__(paths, targets, targets.size)
        self.annotated_sizes = annotated_sizes

    def open(self, index: int) -> Image.Image:
        """One decoded image at its stored size, in RGB.

        Raises:
            DataError: the file is missing, no readable image, or not of the annotated size.
        """
        image = super().open(index)
        height, width = self.annotated_sizes[index].tolist()
        if image.size != (width, height):
            with opened(self.path(index)) as stored:
                turned = " as its EXIF tag turns it" if orientation_of(stored) >= 5 else ""
            raise DataError(
                f"the picture {self.path(index)} is {image.width}×{image.height}{turned} and its "
                f"annotation is for {width}×{height}; correct the annotation or replace the picture"
            )
        return image

    def fit_to_size(self, image: Image.Image) -> Tensor:
        """The letterboxed image: (C, H, W) uint8."""
        if image.size == (self.shape[2], self.shape[1]):
            return self.pixels(image)
        top, left, height, width = self.area(image.height, image.width)
        frame = torch.full(self.shape, GRAY, dtype=torch.uint8)
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        frame[:, top : top + height, left : left + width] = self.pixels(resized)
        return frame

    def area(self, image_height: int, image_width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of an image in the frame."""
        frame_size = self.shape[1], self.shape[2]
        areas = letterbox_areas(np.array([[image_height, image_width]]), frame_size)
        top, left, height, width = areas[0].tolist()
        return top, left, height, width

    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""
        subset = super().take(index)
        subset.annotated_sizes = self.annotated_sizes[index.numpy()]
        return subset


def letterbox_areas(image_sizes: IntArray, frame_size: tuple[int, int]) -> IntArray:
    """The areas that images fill in a frame: as large as it allows, their shape kept, centered.

    Args:
        image_sizes: (N, 2) height and width.
        frame_size: height and width.

    Returns:
        (N, 4): top, left, height, width in pixels of the frame.
    """
    frame = np.array(frame_size)
    scale = (frame / image_sizes).min(1, keepdims=True)
    inner = np.rint(image_sizes * scale).astype(np.int64).clip(1, frame_size)
    return np.concatenate([(frame - inner) // 2, inner], 1)
