"""A set of images or videos with their targets, wherever they lie."""

import copy
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from .targets import Targets


def spaced_indices(count: int, most: int) -> Tensor:
    """At most so many of `count` indices, evenly spaced: (N,) int64."""
    chosen = min(count, most)
    return torch.arange(chosen) * count // max(chosen, 1)


class CropKeys(NamedTuple):
    """What a random resized crop is keyed by."""

    seed: int
    epoch: int
    sample: int
    view: int


class ImageSet(ABC):
    """Labeled images of one shape, or videos.

    Attributes:
        targets: of each image.
        shape: (C, H, W) of one image, or (C, T, H, W) of a clip.
        fit: how a picture is brought to that shape, a name in `preparation.FITS`.
    """

    fit: ClassVar[str]
    targets: Targets
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> Tensor:
        """(N,) int64; zeros where an image has no single label."""
        return self.targets.strata

    def with_targets(self, targets: Targets) -> Self:
        """The same images with other targets."""
        changed = copy.copy(self)
        changed.targets = targets
        return changed

    @abstractmethod
    def fetch(self, index: Tensor) -> Tensor:
        """Images by index: (B,) int64 to (B, C, H, W) uint8."""

    def fetch_view(
        self, index: Tensor, seed: int, epoch: int, sample: Tensor, view: int = 0
    ) -> Tensor:
        """As `fetch`, of videos a random clip each.

        Args:
            index: of the images, (B,) int64.
            seed, epoch, view: keys of the draw, with the index of a sample (B,).
        """
        return self.fetch(index)

    @abstractmethod
    def take(self, index: Tensor) -> Self:
        """The subset at these indices, in this order."""

    def spread(self, most: int) -> Self:
        """At most so many of the images, spread evenly over all, which may lie class by class."""
        return self.take(spaced_indices(len(self), most))

    @abstractmethod
    def with_channels(self, channels: int) -> Self:
        """The same images as `functional.channels` converts them."""
