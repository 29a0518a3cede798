"""What belongs to the images of a set: a label each, a mask each, or boxes."""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import Geometry

NONE = -1
"""The class of a row that holds no box."""
_LEAST = 0.1  # of a box must be left in sight for it to be looked for


class Targets(ABC):
    """Targets of N images, fetched batch by batch and moved with their images.

    Attributes:
        strata: (N,) int64; a part that is held out has its share of each value.
    """

    strata: Tensor

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

    def resized(self, old: tuple[int, int], new: tuple[int, int]) -> Self:
        """The targets of images whose height and width are brought from `old` to `new`."""
        return self


class Labels(Targets):
    """One class an image.

    Args:
        labels: (N,) int64.
    """

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


class Masks(Targets):
    """One class a pixel.

    Args:
        masks: (N, H, W) uint8; `IGNORE` is no class.
    """

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

    def __init__(self, rows: Tensor, size: tuple[int, int]) -> None:
        self.rows, self.size = rows, size
        self.strata = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)

    def at(self, index: Tensor, geometry: Geometry | None = None, epoch: int = 0) -> Tensor:
        """(B, M, 5) float32; what moves out of sight by nine tenths and more becomes `NONE`."""
        rows = self.rows.index_select(0, index)
        if geometry is None:
            return rows
        classes, corners = rows[..., :1], rows[..., 1:]
        moved = geometry.boxes(corners, epoch, index, self.size)
        height, width = self.size
        limit = moved.new_tensor([width, height, width, height])
        seen = moved.clamp(min=0).minimum(limit)
        left = _area(seen) >= _LEAST * _area(moved)
        kept = (classes >= 0) & left[..., None] & (_area(seen) > 1)[..., None]
        return torch.where(
            kept, torch.cat([classes, seen], -1), rows.new_tensor([NONE, 0, 0, 0, 0])
        )

    def take(self, index: Tensor) -> Self:
        """Only the boxes of the images at these places, in this order."""
        return type(self)(self.rows[index], self.size)

    def to(self, device: torch.device | str) -> Self:
        """The same boxes on a device."""
        return type(self)(self.rows.to(device), self.size)

    def resized(self, old: tuple[int, int], new: tuple[int, int]) -> Self:
        """The boxes of stretched images."""
        scale = self.rows.new_tensor([1, new[1] / old[1], new[0] / old[0], 1, 1])
        scale[3:] = scale[1:3]
        return type(self)(self.rows * scale, new)


def _area(corners: Tensor) -> Tensor:
    """(B, M, 4) -> (B, M)."""
    wide, tall = corners[..., 2] - corners[..., 0], corners[..., 3] - corners[..., 1]
    return wide.clamp(min=0) * tall.clamp(min=0)
