"""Images that lie with many others in few files."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .images import ImageFiles
from .open_image import StoredImage
from .targets import Targets

Rows = npt.NDArray[np.int64]
NO_LABEL = -1
"""In place of the label of an image that has none."""


class ImagePack(ABC):
    """Encoded images by row, read from wherever they lie in any order.

    What it holds are arrays or handles of files: objects for each image would be copied by every
    worker that counts their references.
    """

    @property
    @abstractmethod
    def labels(self) -> npt.NDArray[np.int64]:
        """Of all images, (N,); `NO_LABEL` where there is none."""

    @abstractmethod
    def read(self, row: int) -> bytes:
        """The bytes of one image file.

        Raises:
            OSError: they cannot be read.
        """

    @abstractmethod
    def name(self, row: int) -> str:
        """What to call an image that cannot be decoded."""

    @abstractmethod
    def num_bytes(self, row: int) -> int:
        """How many bytes an image file has."""

    @abstractmethod
    def identities(self, rows: Rows) -> Iterator[bytes]:
        """What tells these images apart, wherever the data lie, without their pixels."""


class PackedImages(ImageFiles):
    """Images of a pack, decoded to RGB on demand as image files are.

    Args:
        pack: what holds them.
        rows: of the N images in the pack.
        targets: of each image; (N,) int64 are labels.
        size, resize_ratio: see `ImageFiles`.
    """

    def __init__(
        self,
        pack: ImagePack,
        rows: Rows,
        targets: Targets | Tensor,
        size: tuple[int, int],
        resize_ratio: float = 1.0,
    ) -> None:
        super().__init__((), targets, size, resize_ratio)
        self._pack, self._rows = pack, rows

    def path(self, index: int) -> str:
        """What one image is called."""
        return self._pack.name(int(self._rows[index]))

    def file(self, index: int) -> StoredImage:
        """What an image is opened by."""
        return StoredImage(lambda: self.read_bytes(index), lambda: self.path(index))

    def read_bytes(self, index: int) -> bytes:
        """The bytes of one image file."""
        return self._pack.read(int(self._rows[index]))

    def num_bytes(self, index: int) -> int:
        """How many bytes an image file has."""
        return self._pack.num_bytes(int(self._rows[index]))

    def identities(self) -> Iterator[bytes]:
        """What tells the images apart, wherever the data lie."""
        return self._pack.identities(self._rows)

    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""
        subset = copy.copy(self)
        subset._rows, subset.targets = self._rows[index.numpy()], self.targets.take(index)
        return subset
