"""Sets of labeled images in files that are decoded on demand."""

import copy
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..functional.channels import convert_channels
from .augment import resized_crop_box
from .file_paths import FilePaths
from .image_set import CropKeys, ImageSet
from .in_memory import InMemoryImages
from .open_image import (
    StoredImage,
    UnreadableImageError,
    check_readable,
    image_size,
    open_rgb,
    raise_unreadable,
)
from .targets import Labels, Targets
from .threads import map_in_threads

T = TypeVar("T")
S = TypeVar("S")


class ImageFiles(ImageSet):
    """Image files, decoded to RGB on demand.

    An image of another size is resized, its shape kept, to cover `resize_ratio` times the target
    size, and center-cropped.

    Args:
        paths: the N files.
        targets: of each image; (N,) int64 are labels.
        size: height and width of a fetched image.
        resize_ratio: 256/224 is the custom for photographs; 1 crops least.
    """

    fit = "crop"

    def __init__(
        self,
        paths: FilePaths | Sequence[str | bytes | Path],
        targets: Targets | Tensor,
        size: tuple[int, int],
        resize_ratio: float = 1.0,
    ) -> None:
        self._paths = paths if isinstance(paths, FilePaths) else FilePaths.of(paths)
        self.targets = targets if isinstance(targets, Targets) else Labels(targets)
        self.shape, self.resize_ratio = (3, *size), resize_ratio

    def path(self, index: int) -> str:
        """Path of one image file."""
        return self._paths[index]

    def file(self, index: int) -> str | StoredImage:
        """What an image is opened by."""
        return self.path(index)

    def read_bytes(self, index: int) -> bytes:
        """The bytes of one image file."""
        return Path(self.path(index)).read_bytes()

    def num_bytes(self, index: int) -> int:
        """How many bytes an image file has; 0 where it is none, such as a folder of frames."""
        with suppress(OSError):
            status = os.stat(self.path(index))
            return status.st_size if stat.S_ISREG(status.st_mode) else 0
        return 0

    def identities(self) -> Iterator[bytes]:
        """What tells the images apart, wherever the data lie: the relative path of each."""
        return self._paths.relative()

    def fetch(self, index: Tensor) -> Tensor:
        """Images by index, decoded one after the other."""
        return torch.stack([self.fit_to_size(self.open(i)) for i in index.tolist()])

    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""
        subset = copy.copy(self)
        subset._paths, subset.targets = self._paths.take(index.numpy()), self.targets.take(index)
        return subset

    def with_size(self, size: tuple[int, int], resize_ratio: float) -> Self:
        """The same files, fetched at another size."""
        changed = copy.copy(self)
        changed.shape, changed.resize_ratio = (*self.shape[:-2], *size), resize_ratio
        return changed

    def with_channels(self, channels: int) -> Self:
        """The same files, fetched as `functional.channels` converts them."""
        changed = copy.copy(self)
        changed.shape = (channels, *self.shape[1:])
        return changed

    def load_into_memory(self) -> InMemoryImages:
        """Decode all images, on several threads.

        Raises:
            UnreadableImageError: some cannot be decoded; names all of them.
        """
        images = torch.empty(len(self), *self.shape, dtype=torch.uint8)

        def decode(index: int) -> None:
            images[index] = self.fit_to_size(self.open(index))

        map_images(decode, range(len(self)))
        return InMemoryImages(images, self.targets)

    @property
    def num_pictures(self) -> int:
        """How many pictures there are to decode."""
        return len(self)

    def open(self, index: int) -> Image.Image:
        """One decoded image at its stored size, in RGB, see `open_rgb`."""
        return open_rgb(self.file(index))

    def stored_size(self, index: int) -> tuple[int, int]:
        """Height and width of the image as it is shown; reads the header only."""
        return image_size(self.file(index))

    def check_readable(self, index: int) -> None:
        """Raises `UnreadableImageError` if an image cannot be decoded."""
        check_readable(self.file(index))

    def fit_to_size(self, image: Image.Image) -> Tensor:
        """The resized and center-cropped image: (C, H, W) uint8."""
        height, width = self.shape[-2:]
        if image.size == (width, height):
            return self.pixels(image)
        top, left, resized_height, resized_width = self.area(image.height, image.width)
        image = image.resize((resized_width, resized_height), Image.Resampling.BILINEAR)
        return self.pixels(image.crop((-left, -top, width - left, height - top)))

    def pixels(self, image: Image.Image) -> Tensor:
        """The pixels of an image at its own size, (C, H, W) uint8."""
        return convert_channels(as_tensor(image), self.shape[0])

    def area(self, image_height: int, image_width: int) -> tuple[int, int, int, int]:
        """Where the whole of an image comes to lie: top, left, height and width.

        In pixels of a fetched image, and beyond its edges where it is cropped.
        """
        height, width = self.shape[-2:]
        if (image_height, image_width) == (height, width):
            return 0, 0, height, width
        factor = self.resize_ratio * max(height / image_height, width / image_width)
        resized_height = max(height, round(image_height * factor))
        resized_width = max(width, round(image_width * factor))
        top, left = -((resized_height - height) // 2), -((resized_width - width) // 2)
        return top, left, resized_height, resized_width

    def crop_to_size(self, image: Image.Image, box: Sequence[int]) -> Tensor:
        """A crop (top, left, height, width) of an image, resized: (C, H, W) uint8."""
        top, left, height, width = box
        corners = (left, top, left + width, top + height)
        size = (self.shape[-1], self.shape[-2])
        return self.pixels(image.crop(corners).resize(size, Image.Resampling.BILINEAR))

    def crop(self, image: Image.Image, keys: CropKeys | None) -> Tensor:
        """A random resized crop, or without keys the center: (C, H, W) uint8."""
        if keys is None:
            return self.fit_to_size(image)
        sample = torch.tensor([keys.sample])
        size = image.height, image.width
        box = resized_crop_box(keys.seed, keys.epoch, sample, *size, view=keys.view)[0]
        return self.crop_to_size(image, box.tolist())

    def decode(self, index: int, keys: Sequence[CropKeys | None]) -> list[Tensor]:
        """One image, decoded once, in a crop (C, H, W) for each of the keys."""
        image = self.open(index)
        return [self.crop(image, key) for key in keys]


def load_splits(splits: Mapping[str, ImageFiles]) -> dict[str, ImageSet]:
    """Decode the images of all splits into memory.

    Raises:
        UnreadableImageError: some cannot be decoded; names those of all splits.
    """
    loaded: dict[str, ImageSet] = {}
    broken: list[UnreadableImageError] = []
    for split, files in splits.items():
        try:
            loaded[split] = files.load_into_memory()
        except UnreadableImageError as error:
            broken.append(error)
    raise_unreadable(broken)
    return loaded


def map_images(work: Callable[[T], S], items: Sequence[T]) -> list[S]:
    """As `map_in_threads`, for work that reads images.

    Raises:
        UnreadableImageError: naming all images that cannot be read, not the first only.
    """
    broken: list[UnreadableImageError] = []

    def attempt(item: T) -> list[S]:
        try:
            return [work(item)]
        except UnreadableImageError as error:
            broken.append(error)
            return []

    results = map_in_threads(attempt, items)
    raise_unreadable(broken)
    return [result for one in results for result in one]


def as_tensor(image: Image.Image) -> Tensor:
    """The pixels of an image, (3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
