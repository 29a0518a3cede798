"""Labeled images: all in memory, or in files and decoded on demand."""

import copy
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..core import DataError
from .targets import Labels, Targets

_CHUNK = 1024  # images treated at once where a float copy of the whole set would not fit
_BROKEN = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


class Images(ABC):
    """Labeled images, all of one shape once fetched.

    Attributes:
        targets: what belongs to each image.
        shape: (C, H, W) of one image.
    """

    targets: Targets
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> Tensor:
        """(N,) int64; of images without one label each, zeros."""
        return self.targets.strata

    @abstractmethod
    def fetch(self, index: Tensor) -> Tensor:
        """The images at these places: (B,) int64 to (B, C, H, W) uint8."""

    @abstractmethod
    def take(self, index: Tensor) -> Self:
        """Only the images at these places, in this order."""


class Resident(Images):
    """Images in memory, on any device.

    Args:
        images: (N, C, H, W) uint8.
        targets: of each image, on the same device; (N,) int64 are labels.
    """

    def __init__(self, images: Tensor, targets: Targets | Tensor) -> None:
        channels, height, width = images.shape[1:]
        self.images, self.shape = images, (channels, height, width)
        self.targets = targets if isinstance(targets, Targets) else Labels(targets)

    def fetch(self, index: Tensor) -> Tensor:
        """The images at these places; the index must be on the images' device."""
        return self.images.index_select(0, index)

    def take(self, index: Tensor) -> Self:
        """Only the images at these places, in this order."""
        return type(self)(self.fetch(index), self.targets.take(index))

    def to(self, device: torch.device | str) -> Self:
        """The same images on a device; free of cost where they are there already."""
        return type(self)(self.images.to(device), self.targets.to(device))

    def resized(self, size: int) -> Self:
        """Every image brought to size × size, bilinear with antialiasing, its targets with it."""
        old = self.shape[1:]
        if old == (size, size):
            return self
        parts = [
            F.interpolate(part, size=(size, size), mode="bilinear", antialias=True)
            for part in self.images.split(_CHUNK)
        ]
        return type(self)(torch.cat(parts), self.targets.resized(old, (size, size)))

    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, of pixels in [0, 1].

        From exact counts of the 256 values, so independent of order and threads.
        A constant channel gets the standard deviation 1.
        """
        counts = torch.zeros(self.shape[0], 256, dtype=torch.float64)
        for part in self.images.split(_CHUNK):
            for c in range(self.shape[0]):
                counts[c] += torch.bincount(part[:, c].flatten(), minlength=256).cpu()
        share = counts / counts.sum(1, keepdim=True)
        value = torch.arange(256, dtype=torch.float64) / 255
        mean = (share * value).sum(1)
        std = (share * (value - mean[:, None]).square()).sum(1).sqrt()
        return tuple(mean.tolist()), tuple(s or 1.0 for s in std.tolist())


class Folder(Images):
    """Pictures in files, decoded to RGB when they are asked for.

    A picture that has the wanted size already is left as it is; of any other the shorter side is
    resized to `zoom` times the wanted one and the center is cut out.

    Args:
        paths: the N files.
        targets: of each picture; (N,) int64 are labels.
        size: height and width of a fetched image.
        zoom: 256/224 is the custom for photographs; 1 loses least of a picture.
    """

    def __init__(
        self,
        paths: Sequence[str | bytes | Path],
        targets: Targets | Tensor,
        size: tuple[int, int],
        zoom: float = 1.0,
    ) -> None:
        # one block of bytes: a million strings would be copied by every worker that counts their
        # references
        self._paths = np.array([os.fsencode(p) for p in paths])
        self.targets = targets if isinstance(targets, Targets) else Labels(targets)
        self.shape, self.zoom = (3, *size), zoom

    def path(self, place: int) -> str:
        """The file of one picture."""
        return os.fsdecode(self._paths[place])

    def fetch(self, index: Tensor) -> Tensor:
        """The images at these places, decoded one after the other."""
        return torch.stack([self.fitted(self.open(i)) for i in index.tolist()])

    def take(self, index: Tensor) -> Self:
        """Only the images at these places, in this order."""
        taken = copy.copy(self)
        taken._paths, taken.targets = self._paths[index.numpy()], self.targets.take(index)
        return taken

    def at(self, size: tuple[int, int], zoom: float) -> Self:
        """The same pictures, fetched at another size."""
        changed = copy.copy(self)
        changed.shape, changed.zoom = (3, *size), zoom
        return changed

    def resident(self) -> Resident:
        """All pictures decoded, by as many threads as the machine has cores."""
        images = torch.empty(len(self), *self.shape, dtype=torch.uint8)

        def decode(place: int) -> None:
            images[place] = self.fitted(self.open(place))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(decode, range(len(self))):  # reading the results raises their errors
                pass
        return Resident(images, self.targets)

    def open(self, place: int) -> Image.Image:
        """One picture, whole, in RGB.

        Raises:
            DataError: the file is missing or no readable picture.
        """
        try:
            with Image.open(self.path(place)) as picture:
                return picture.convert("RGB")
        except _BROKEN as fault:
            raise unreadable(self.path(place), fault) from None

    def stored_size(self, place: int) -> tuple[int, int]:
        """Height and width of the picture in its file; reads the header only."""
        try:
            with Image.open(self.path(place)) as picture:
                return picture.height, picture.width
        except _BROKEN as fault:
            raise unreadable(self.path(place), fault) from None

    def fitted(self, picture: Image.Image) -> Tensor:
        """The middle of a picture at the wanted size: (3, H, W) uint8."""
        height, width = self.shape[1:]
        if picture.size == (width, height):
            return as_tensor(picture)
        factor = self.zoom * max(height / picture.height, width / picture.width)
        tall = max(height, round(picture.height * factor))
        wide = max(width, round(picture.width * factor))
        picture = picture.resize((wide, tall), Image.Resampling.BILINEAR)
        top, left = (tall - height) // 2, (wide - width) // 2
        return as_tensor(picture.crop((left, top, left + width, top + height)))

    def boxed(self, picture: Image.Image, box: Sequence[int]) -> Tensor:
        """A part (top, left, height, width) of a picture at the wanted size: (3, H, W) uint8."""
        top, left, height, width = box
        corners = (left, top, left + width, top + height)
        size = (self.shape[2], self.shape[1])
        return as_tensor(picture.crop(corners).resize(size, Image.Resampling.BILINEAR))


def unreadable(path: str, fault: BaseException) -> DataError:
    """What to say of a picture that cannot be decoded."""
    reason = str(fault).replace("\n", " ") or type(fault).__name__
    return DataError(f"cannot read the image {path} ({reason}); mend or remove the file")


def as_tensor(picture: Image.Image) -> Tensor:
    """A picture's bytes, (3, H, W) uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()  # (3, H, W)


@dataclass(frozen=True)
class ImageData:
    """A data set, ready for the loaders.

    Attributes:
        name: as it was asked for.
        train, val, test: the parts; val chooses between runs and epochs, test has the last word.
        classes: names, in the order of the labels.
        mean, std: one number per channel, of pixels in [0, 1].
        crop: padding of the random crop that suits this data, in pixels; 0 for none.
        flip: whether a mirrored image keeps its meaning.
        resized_crop: whether random parts of random sizes suit this data.
        zoom: the largest random enlargement that suits this data; 1 for none.
        task: what the targets are for, a name in `tasks.TASKS`.
        layout: in which of several layouts a folder was found; "" where there is one only.
    """

    name: str
    train: Images
    val: Images | None
    test: Images | None
    classes: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int
    flip: bool
    resized_crop: bool
    zoom: float = 1.0
    task: str = "classification"
    layout: str = ""
