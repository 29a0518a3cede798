"""Sets of labeled images, in memory or in files that are decoded on demand."""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..functional.channels import convert_channels
from .open_image import UnreadableImageError, image_size, open_rgb
from .targets import Labels, Targets
from .threads import map_in_threads

_CHUNK = 1024  # images at once where a float copy of the set would not fit
T = TypeVar("T")
S = TypeVar("S")


class ImageSet(ABC):
    """Labeled images of one shape.

    Attributes:
        targets: of each image.
        shape: (C, H, W) of one image.
        fit: how a picture is brought to that shape, a name in `preparation.FITS`.
    """

    fit: ClassVar[str]
    targets: Targets
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> Tensor:
        """(N,) int64; zeros where an image has no single label."""
        return self.targets.strata

    @abstractmethod
    def fetch(self, index: Tensor) -> Tensor:
        """Images by index: (B,) int64 to (B, C, H, W) uint8."""

    @abstractmethod
    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""

    @abstractmethod
    def with_channels(self, channels: int) -> Self:
        """The same images as `functional.channels` converts them."""


class InMemoryImages(ImageSet):
    """Images in memory, on any device.

    Args:
        images: (N, C, H, W) uint8.
        targets: of each image, on the same device; (N,) int64 are labels.
    """

    fit = "stretch"

    def __init__(self, images: Tensor, targets: Targets | Tensor) -> None:
        channels, height, width = images.shape[1:]
        self.images, self.shape = images, (channels, height, width)
        self.targets = targets if isinstance(targets, Targets) else Labels(targets)

    def fetch(self, index: Tensor) -> Tensor:
        """Images by index; the index must be on the images' device."""
        return self.images.index_select(0, index)

    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""
        return type(self)(self.fetch(index), self.targets.take(index))

    def with_channels(self, channels: int) -> Self:
        """The same images as `functional.channels` converts them."""
        if channels >= self.shape[0]:
            return type(self)(convert_channels(self.images, channels), self.targets)  # a view
        chunks = [convert_channels(chunk, channels) for chunk in self.images.split(_CHUNK)]
        return type(self)(torch.cat(chunks), self.targets)

    def to(self, device: torch.device | str) -> Self:
        """The same images on a device, without a copy if they are on it."""
        return type(self)(self.images.to(device), self.targets.to(device))

    def resized(self, size: tuple[int, int]) -> Self:
        """The images at this height and width, bilinear with antialiasing, and their targets."""
        old = self.shape[1:]
        if old == size:
            return self
        chunks = [
            F.interpolate(chunk, size=size, mode="bilinear", antialias=True)
            for chunk in self.images.split(_CHUNK)
        ]
        return type(self)(torch.cat(chunks), self.targets.resized(old, size))

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, of pixels in [0, 1].

        From exact counts of the 256 values, so independent of order and threads.
        A constant channel gets the standard deviation 1.
        """
        counts = torch.zeros(self.shape[0], 256, dtype=torch.float64)
        for chunk in self.images.split(_CHUNK):
            for c in range(self.shape[0]):
                counts[c] += torch.bincount(chunk[:, c].flatten(), minlength=256).cpu()
        frequency = counts / counts.sum(1, keepdim=True)
        value = torch.arange(256, dtype=torch.float64) / 255
        mean = (frequency * value).sum(1)
        std = (frequency * (value - mean[:, None]).square()).sum(1).sqrt()
        return tuple(mean.tolist()), tuple(s or 1.0 for s in std.tolist())


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
        paths: Sequence[str | bytes | Path],
        targets: Targets | Tensor,
        size: tuple[int, int],
        resize_ratio: float = 1.0,
    ) -> None:
        # one block of bytes: a million strings would be copied by every worker that counts their
        # references
        self._paths = np.array([os.fsencode(p) for p in paths])
        self.targets = targets if isinstance(targets, Targets) else Labels(targets)
        self.shape, self.resize_ratio = (3, *size), resize_ratio

    def path(self, index: int) -> str:
        """Path of one image file."""
        return os.fsdecode(self._paths[index])

    def fetch(self, index: Tensor) -> Tensor:
        """Images by index, decoded one after the other."""
        return torch.stack([self.fit_to_size(self.open(i)) for i in index.tolist()])

    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""
        subset = copy.copy(self)
        subset._paths, subset.targets = self._paths[index.numpy()], self.targets.take(index)
        return subset

    def with_size(self, size: tuple[int, int], resize_ratio: float) -> Self:
        """The same files, fetched at another size."""
        changed = copy.copy(self)
        changed.shape, changed.resize_ratio = (self.shape[0], *size), resize_ratio
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

    def open(self, index: int) -> Image.Image:
        """One decoded image at its stored size, in RGB, see `open_rgb`."""
        return open_rgb(self.path(index))

    def stored_size(self, index: int) -> tuple[int, int]:
        """Height and width of the image as it is shown; reads the header only."""
        return image_size(self.path(index))

    def fit_to_size(self, image: Image.Image) -> Tensor:
        """The resized and center-cropped image: (C, H, W) uint8."""
        height, width = self.shape[1:]
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
        height, width = self.shape[1:]
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
        size = (self.shape[2], self.shape[1])
        return self.pixels(image.crop(corners).resize(size, Image.Resampling.BILINEAR))


def load_splits(splits: Mapping[str, ImageFiles]) -> dict[str, ImageSet]:
    """Decode the images of all splits into memory.

    Raises:
        UnreadableImageError: some cannot be decoded; names those of all splits.
    """
    loaded: dict[str, ImageSet] = {}
    broken: list[tuple[str, str]] = []
    for split, files in splits.items():
        try:
            loaded[split] = files.load_into_memory()
        except UnreadableImageError as error:
            broken += error.files
    if broken:
        raise UnreadableImageError(broken)
    return loaded


def map_images(work: Callable[[T], S], items: Sequence[T]) -> list[S]:
    """As `map_in_threads`, for work that reads images.

    Raises:
        UnreadableImageError: naming all images that cannot be read, not the first only.
    """
    broken: list[tuple[str, str]] = []

    def attempt(item: T) -> list[S]:
        try:
            return [work(item)]
        except UnreadableImageError as error:
            broken.extend(error.files)
            return []

    results = map_in_threads(attempt, items)
    if broken:
        raise UnreadableImageError(sorted(broken))
    return [result for one in results for result in one]


def as_tensor(image: Image.Image) -> Tensor:
    """The pixels of an image, (3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
