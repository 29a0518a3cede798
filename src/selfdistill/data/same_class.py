"""Random pairs of images of one class."""

import torch
from torch import Tensor

from ..core import keyed_random

_PARTNER = keyed_random.purpose("partner")


class SameClassSampler:
    """Draws a uniformly random image of the same class, which may be the image itself.

    A draw is a function of (seed, epoch, index), whatever the batch, the process and the worker.

    Args:
        labels: of all training images, (N,) int64.
        seed: key of every draw.
    """

    def __init__(self, labels: Tensor, seed: int) -> None:
        self.labels, self.seed = labels.cpu(), seed
        self.order = self.labels.argsort(stable=True)  # grouped by class
        self.counts = torch.bincount(self.labels)
        self.starts = self.counts.cumsum(0) - self.counts

    def draw(self, epoch: int, index: Tensor) -> Tensor:
        """An index of the same class for each index: int64 of any shape, on the CPU."""
        label = self.labels[index]
        rank = keyed_random.bits(_PARTNER, self.seed, epoch, index) % self.counts[label]
        return self.order[self.starts[label] + rank]
