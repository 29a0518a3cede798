"""Targets of a set of images: a label each, a mask each, boxes, embeddings, or none."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core import IGNORE, DataError
from .geometry import GeometricAugmentation

NO_BOX = -1
"""The class of a row that holds no box."""


class Targets(ABC):
    """Targets of N images, fetched by batch and transformed with their images.

    Attributes:
        strata: (N,) int64; held-out splits are stratified by it.
        unit: plural noun of the things that have a class: images, pixels or boxes.
        follows_auto: whether they are still right when RandAugment, TrivialAugment or random
            erasing have changed their image.
        follows_windows: whether they follow a mosaic and a random scale and shift.
    """

    strata: Tensor
    unit: ClassVar[str]
    follows_auto: ClassVar[bool] = True
    follows_windows: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.strata)

    @abstractmethod
    def fetch(
        self, index: Tensor, geometry: GeometricAugmentation | None = None, epoch: int = 0
    ) -> Any:
        """Targets by index, (B,) int64, transformed as the images are by the geometry."""

    @abstractmethod
    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """The same targets on a device."""

    @abstractmethod
    def counts(self, classes: int) -> Tensor:
        """Number of units of each class, (classes,) int64."""

    def empty(self) -> Tensor:
        """(N,) bool: images without a unit of any class."""
        return torch.zeros_like(self.strata, dtype=torch.bool)

    def resized(self, old: tuple[int, int], new: tuple[int, int]) -> Self:
        """The targets of images that are resized from `old` to `new` height and width."""
        return self

    def picture_areas(self, size: tuple[int, int]) -> Tensor:
        """Where each picture lies in its image of that size, without the gray around it.

        Returns:
            (N, 4) float32: top, left, height, width in pixels.
        """
        return torch.tensor([0.0, 0.0, *size], device=self.strata.device).repeat(len(self), 1)


class Labels(Targets):
    """One class per image.

    Args:
        labels: (N,) integers.

    Raises:
        DataError: labels of another form.
    """

    unit = "images"

    def __init__(self, labels: Tensor) -> None:
        labels = torch.as_tensor(labels)  # who calls from Python may have an array
        if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
            raise DataError(
                f"labels are (N,) integers, the class of each image, and these are "
                f"{tuple(labels.shape)} of {labels.dtype}; give the numbers of the classes"
            )
        self.strata = labels.long()

    def fetch(
        self, index: Tensor, geometry: GeometricAugmentation | None = None, epoch: int = 0
    ) -> Tensor:
        """(B,) int64."""
        return self.strata.index_select(0, index)

    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""
        return type(self)(self.strata[index])

    def to(self, device: torch.device | str) -> Self:
        """The same labels on a device."""
        return type(self)(self.strata.to(device))

    def counts(self, classes: int) -> Tensor:
        """Images of each class."""
        return torch.bincount(self.strata, minlength=classes)


class Unlabeled(Targets):
    """No target: of images whose labels are not read, or which have none.

    Args:
        strata: (N,) int64, the folder of each image, or its label where there is one.
    """

    unit = "images"

    def __init__(self, strata: Tensor) -> None:
        self.strata = strata

    def fetch(
        self, index: Tensor, geometry: GeometricAugmentation | None = None, epoch: int = 0
    ) -> Any:
        """None."""
        return None

    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""
        return type(self)(self.strata[index])

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        return type(self)(self.strata.to(device))

    def counts(self, classes: int) -> Tensor:
        """Zeros: no image has a class."""
        return torch.zeros(classes, dtype=torch.int64)


class Embeddings(Unlabeled):
    """What a teacher gives for each image.

    Args:
        strata: see `Unlabeled`.
        vectors: (N, D) floating point.
    """

    def __init__(self, strata: Tensor, vectors: Tensor) -> None:
        super().__init__(strata)
        self.vectors = vectors

    def fetch(
        self, index: Tensor, geometry: GeometricAugmentation | None = None, epoch: int = 0
    ) -> Tensor:
        """(B, D) float32."""
        return self.vectors.index_select(0, index).float()

    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""
        return type(self)(self.strata[index], self.vectors[index])

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        return type(self)(self.strata.to(device), self.vectors.to(device))


class Masks(Targets):
    """One class per pixel.

    Args:
        masks: (N, H, W) uint8; `IGNORE` is no class.
    """

    unit = "pixels"
    follows_windows = True

    def __init__(self, masks: Tensor) -> None:
        self.masks = masks
        self.strata = masks.new_zeros(len(masks), dtype=torch.int64)

    def fetch(
        self, index: Tensor, geometry: GeometricAugmentation | None = None, epoch: int = 0
    ) -> Tensor:
        """(B, H, W) int64."""
        if geometry is None:
            return self.masks.index_select(0, index).long()
        return geometry.transform_masks(self.masks, epoch, index).long()

    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""
        return type(self)(self.masks[index])

    def to(self, device: torch.device | str) -> Self:
        """The same masks on a device."""
        return type(self)(self.masks.to(device))

    def counts(self, classes: int) -> Tensor:
        """Pixels of each class."""
        counts = (torch.bincount(m.flatten(), minlength=IGNORE + 1) for m in self.masks.split(256))
        return torch.stack(list(counts)).sum(0)[:classes]

    def empty(self) -> Tensor:
        """(N,) bool: images in which no pixel has a class."""
        return (self.masks == IGNORE).flatten(1).all(1)

    def resized(self, old: tuple[int, int], new: tuple[int, int]) -> Self:
        """Nearest-neighbor resampling."""
        chunks = [
            F.interpolate(chunk[:, None].float(), size=new, mode="nearest-exact")[:, 0].byte()
            for chunk in self.masks.split(256)
        ]
        return type(self)(torch.cat(chunks))


class Boxes(Targets):
    """Any number of objects per image, each with a class and a box.

    Args:
        rows: (N, M, 5) float32: class, x1, y1, x2, y2 in pixels; images with fewer than M objects
            are padded with rows of class `NO_BOX`.
        size: height and width of the images.
        areas: (N, 4), see `picture_areas`; None where each picture fills its image.
    """

    unit = "boxes"
    follows_auto, follows_windows = False, True

    def __init__(self, rows: Tensor, size: tuple[int, int], areas: Tensor | None = None) -> None:
        self.rows, self.size = rows, size
        self.strata = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        self.areas = super().picture_areas(size) if areas is None else areas.float()

    def fetch(
        self, index: Tensor, geometry: GeometricAugmentation | None = None, epoch: int = 0
    ) -> Tensor:
        """(B, M, 5) float32, in epochs with mosaics (B, 4·M, 5); what is lost becomes `NO_BOX`.

        See `GeometricAugmentation.transform_boxes` for which boxes are.
        """
        if geometry is None:
            return self.rows.index_select(0, index)
        if mosaic := geometry.mosaic_in(epoch):
            layout = mosaic.layout(epoch, index)
            tiles = self.rows[layout.samples]  # (B, 4, M, 5)
            corners = layout.move_boxes(tiles[..., 1:])
            present = torch.where(layout.present[..., None], tiles[..., 0], NO_BOX)
            classes = present.flatten(1)[..., None]
        else:
            rows = self.rows.index_select(0, index)
            classes, corners = rows[..., :1], rows[..., 1:]
        visible, kept = geometry.transform_boxes(corners, epoch, index, self.size)
        return torch.where(
            (classes >= 0) & kept[..., None],
            torch.cat([classes, visible], -1),
            self.rows.new_tensor([NO_BOX, 0, 0, 0, 0]),
        )

    def take(self, index: Tensor) -> Self:
        """The boxes of the images at these indices, in this order."""
        return type(self)(self.rows[index], self.size, self.areas[index])

    def to(self, device: torch.device | str) -> Self:
        """The same boxes on a device."""
        return type(self)(self.rows.to(device), self.size, self.areas.to(device))

    def counts(self, classes: int) -> Tensor:
        """Boxes of each class."""
        labels = self.rows[..., 0].long()
        return torch.bincount(labels[labels >= 0], minlength=classes)

    def empty(self) -> Tensor:
        """(N,) bool: images without an object."""
        return (self.rows[..., 0] < 0).all(1)

    def count_thin(self, pixels: float) -> int:
        """Number of boxes less than so many pixels wide or high."""
        sides = self.rows[..., 3:] - self.rows[..., 1:3]
        return int(((sides < pixels).any(-1) & (self.rows[..., 0] >= 0)).sum())

    def resized(self, old: tuple[int, int], new: tuple[int, int]) -> Self:
        """The boxes of resized images."""
        scale = self.rows.new_tensor([1, new[1] / old[1], new[0] / old[0], 1, 1])
        scale[3:] = scale[1:3]
        return type(self)(self.rows * scale, new, self.areas * scale[[2, 1, 2, 1]])

    def picture_areas(self, size: tuple[int, int]) -> Tensor:
        """Those that were given; the size is known."""
        return self.areas
