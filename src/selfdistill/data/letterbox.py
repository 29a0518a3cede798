"""Pictures brought whole into one frame, and their boxes with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ..core import DataError
from .geometry import GRAY
from .images import Folder, as_tensor
from .targets import Boxes

Integers = npt.NDArray[np.int64]


class Letterboxed(Folder):
    """Pictures in files with boxes; gray fills what a picture of another shape leaves free.

    Args:
        paths: the N files.
        targets: the boxes, in pixels of the frame; its size is that of a fetched image.
        stored: (N, 2) int64, height and width of each picture as its boxes were drawn.
    """

    def __init__(self, paths: Sequence[str | Path], targets: Boxes, stored: Integers) -> None:
        super().__init__(paths, targets, targets.size)
        self.stored = stored

    def open(self, place: int) -> Image.Image:
        """One picture, whole, in RGB.

        Raises:
            DataError: the file is missing, no readable picture, or not of the size that its boxes
                were drawn for.
        """
        picture = super().open(place)
        height, width = self.stored[place].tolist()
        if picture.size != (width, height):
            raise DataError(
                f"the picture {self.path(place)} is {picture.width}×{picture.height} and its "
                f"annotation is for {width}×{height}; one of the two is another picture's"
            )
        return picture

    def fitted(self, picture: Image.Image) -> Tensor:
        """The whole picture in the middle of the frame: (3, H, W) uint8."""
        size = self.shape[1], self.shape[2]
        if picture.size == size[::-1]:
            return as_tensor(picture)
        top, left, tall, wide = placed(np.array([[picture.height, picture.width]]), size)[0]
        frame = torch.full(self.shape, GRAY, dtype=torch.uint8)
        inner = picture.resize((int(wide), int(tall)), Image.Resampling.BILINEAR)
        frame[:, top : top + tall, left : left + wide] = as_tensor(inner)
        return frame

    def take(self, index: Tensor) -> Self:
        """Only the pictures at these places, in this order."""
        taken = super().take(index)
        taken.stored = self.stored[index.numpy()]
        return taken


def placed(stored: Integers, size: tuple[int, int]) -> Integers:
    """Where pictures lie in a frame: as large as it allows, their shape kept, in the middle.

    Args:
        stored: (N, 2) height and width of the pictures.
        size: height and width of the frame.

    Returns:
        (N, 4): top, left, height, width in pixels of the frame.
    """
    scale = (np.array(size) / stored).min(1, keepdims=True)
    inner = np.rint(stored * scale).astype(np.int64).clip(1, size)
    return np.concatenate([(np.array(size) - inner) // 2, inner], 1)
