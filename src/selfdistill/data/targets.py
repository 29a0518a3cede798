"""What belongs to the images of a set: a label each, a mask each, or boxes."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core import IGNORE
from .geometry import Geometry

NONE = -1
"""The class of a row that holds no box."""
_LEAST = 0.1  # of a box must be left in sight for it to be looked for


class Targets(ABC):
    """Targets of N images, fetched batch by batch and moved with their images.

    Attributes:
        strata: (N,) int64; a part that is held out has its share of each value.
        unit: what has a class: images, pixels or boxes.
    """

    strata: Tensor
    unit: ClassVar[str]

    def __len__(self) -> int:
        return len(self.strata)

    @abstractmethod
    def at(self, index: Tensor, geometry: Geometry | None = None, epoch: int = 0) -> Any:
        """The targets at these places, (B,) int64, moved as the images are by the geometry."""

    @abstractmethod
    def take(self, index: Tensor) -> Self:
        """Only the targets at these places, in this order."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """The same targets on a device."""

    @abstractmethod
    def counts(self, classes: int) -> Tensor:
        """How many units each class has, (classes,) int64."""

    def empty(self) -> Tensor:
        """(N,) bool: which images have no unit of any class."""
        return torch.zeros_like(self.strata, dtype=torch.bool)

    def resized(self, old: tuple[int, int], new: tuple[int, int]) -> Self:
        """The targets of images whose height and width are brought from `old` to `new`."""
        return self


class Labels(Targets):
    """One class an image.

    Args:
        labels: (N,) int64.
    """

    unit = "images"

    def __init__(self, labels: Tensor) -> None:
        self.strata = labels

    def at(self, index: Tensor, geometry: Geometry | None = None, epoch: int = 0) -> Tensor:
        """(B,) int64."""
        return self.strata.index_select(0, index)

    def take(self, index: Tensor) -> Self:
        """Only the labels at these places, in this order."""
        return type(self)(self.strata[index])

    def to(self, device: torch.device | str) -> Self:
        """The same labels on a device."""
        return type(self)(self.strata.to(device))

    def counts(self, classes: int) -> Tensor:
        """Images of each class."""
        return torch.bincount(self.strata, minlength=classes)


class Masks(Targets):
    """One class a pixel.

    Args:
        masks: (N, H, W) uint8; `IGNORE` is no class.
    """

    unit = "pixels"

    def __init__(self, masks: Tensor) -> None:
        self.masks = masks
        self.strata = masks.new_zeros(len(masks), dtype=torch.int64)

    def at(self, index: Tensor, geometry: Geometry | None = None, epoch: int = 0) -> Tensor:
        """(B, H, W) int64."""
        masks = self.masks.index_select(0, index)
        return (geometry.masks(masks, epoch, index) if geometry else masks).long()

    def take(self, index: Tensor) -> Self:
        """Only the masks at these places, in this order."""
        return type(self)(self.masks[index])

    def to(self, device: torch.device | str) -> Self:
        """The same masks on a device."""
        return type(self)(self.masks.to(device))

    def counts(self, classes: int) -> Tensor:
        """Pixels of each class."""
        parts = (torch.bincount(m.flatten(), minlength=IGNORE + 1) for m in self.masks.split(256))
        return torch.stack(list(parts)).sum(0)[:classes]

    def empty(self) -> Tensor:
        """(N,) bool: in which images no pixel has a class."""
        return (self.masks == IGNORE).flatten(1).all(1)

    def resized(self, old: tuple[int, int], new: tuple[int, int]) -> Self:
        """Each pixel from its nearest."""
        parts = [
            F.interpolate(part[:, None].float(), size=new, mode="nearest-exact")[:, 0].byte()
            for part in self.masks.split(256)
        ]
        return type(self)(torch.cat(parts))


class Boxes(Targets):
    """Objects with a class and a box, as many an image as there are.

    Args:
        rows: (N, M, 5) float32: class, x1, y1, x2, y2 in pixels; images with fewer than M objects
            are filled up with rows of class `NONE`.
        size: height and width of the images.
    """

    unit = "boxes"

    def __init__(self, rows: Tensor, size: tuple[int, int]) -> None:
        self.rows, self.size = rows, size
        self.strata = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)

    def at(self, index: Tensor, geometry: Geometry | None = None, epoch: int = 0) -> Tensor:
        """(B, M, 5) float32; what moves out of sight by nine tenths and more becomes `NONE`."""
        rows = self.rows.index_select(0, index)
        if geometry is None:
            return rows
        classes, corners = rows[..., :1], rows[..., 1:]
        seen, share = geometry.boxes(corners, epoch, index, self.size)
        kept = (classes >= 0) & (share >= _LEAST)[..., None]
        return torch.where(
            kept, torch.cat([classes, seen], -1), rows.new_tensor([NONE, 0, 0, 0, 0])
        )

    def take(self, index: Tensor) -> Self:
        """Only the boxes of the images at these places, in this order."""
        return type(self)(self.rows[index], self.size)

    def to(self, device: torch.device | str) -> Self:
        """The same boxes on a device."""
        return type(self)(self.rows.to(device), self.size)

    def counts(self, classes: int) -> Tensor:
        """Boxes of each class."""
        found = self.rows[..., 0].long()
        return torch.bincount(found[found >= 0], minlength=classes)

    def empty(self) -> Tensor:
        """(N,) bool: in which images there is no object."""
        return (self.rows[..., 0] < 0).all(1)

    def thin(self, pixels: float) -> int:
        """How many boxes are less than so many pixels wide or high."""
        sides = self.rows[..., 3:] - self.rows[..., 1:3]
        return int(((sides < pixels).any(-1) & (self.rows[..., 0] >= 0)).sum())

    def resized(self, old: tuple[int, int], new: tuple[int, int]) -> Self:
        """The boxes of stretched images."""
        scale = self.rows.new_tensor([1, new[1] / old[1], new[0] / old[0], 1, 1])
        scale[3:] = scale[1:3]
        return type(self)(self.rows * scale, new)
