"""Sets of labeled images in memory."""

import copy
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core import DataError
from ..functional.channels import convert_channels
from .image_set import ImageSet
from .targets import Labels, Targets

_CHUNK = 1024  # images at once where a float copy of the set would not fit


class InMemoryImages(ImageSet):
    """Images in memory, on any device.

    Args:
        images: (N, C, H, W) uint8.
        targets: of each image, on the same device; (N,) integers are labels.

    Raises:
        DataError: images of another form, or not one target for each.
    """

    fit = "stretch"

    def __init__(self, images: Tensor, targets: Targets | Tensor) -> None:
        if images.dtype != torch.uint8 or images.dim() not in (4, 5):  # clips have times, too
            raise DataError(
                f"images in memory are (N, C, H, W) of uint8, 0 … 255, and these are "
                f"{tuple(images.shape)} of {images.dtype}; convert them, "
                "(255 * images).round().to(torch.uint8) where they are 0 … 1"
            )
        self.images, self.shape = images, tuple(images.shape[1:])
        self.targets = targets if isinstance(targets, Targets) else Labels(targets)
        self._check_counts()

    def _check_counts(self) -> None:
        if len(self.images) != len(self):
            raise DataError(
                f"{len(self.images):,} images have {len(self):,} targets; give one each"
            )

    def fetch(self, index: Tensor) -> Tensor:
        """Images by index; the index must be on the images' device."""
        return self.images.index_select(0, index)

    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""
        return type(self)(self.fetch(index), self.targets.take(index))

    def with_channels(self, channels: int) -> Self:
        """The same images as `functional.channels` converts them."""
        if channels >= self.shape[0]:
            return self._with_images(convert_channels(self.images, channels))  # a view
        chunks = [convert_channels(chunk, channels) for chunk in self.images.split(_CHUNK)]
        return self._with_images(torch.cat(chunks))

    def to(self, device: torch.device | str) -> Self:
        """The same images on a device, without a copy if they are on it."""
        moved = self._with_images(self.images.to(device))
        moved.targets = self.targets.to(device)
        return moved

    def resized(self, size: tuple[int, int]) -> Self:
        """The images at this height and width, bilinear with antialiasing, and their targets."""
        old = (self.shape[-2], self.shape[-1])
        if old == size:
            return self
        chunks = [
            F.interpolate(chunk, size=size, mode="bilinear", antialias=True)
            for chunk in self.images.split(_CHUNK)
        ]
        resized = self._with_images(torch.cat(chunks))
        resized.targets = self.targets.resized(old, size)
        return resized

    def _with_images(self, images: Tensor) -> Self:
        """The same targets with the images in another form."""
        changed = copy.copy(self)
        changed.images, changed.shape = images, tuple(images.shape[1:])
        return changed

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
