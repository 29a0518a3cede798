"""What goes into a training step and what comes out of it."""

from typing import Any, NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One training batch on its device.

    Attributes:
        inputs: images, (B, C, H, W) float, normalised.
        targets: what the task's loss takes; for classification (B,) int64.
        index: place of each sample in the training set, (B,) int64.
        views: further independent augmentations of the same images, as many as `Needs.views` − 1.
    """

    inputs: Tensor
    targets: Any
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which no batch needs
    views: tuple[Tensor, ...] = ()


class Progress(NamedTuple):
    """Where training stands: 0-d tensors on the batch's device.

    Tensors, not numbers: a compiled step would be compiled anew for each value of a number, and a
    draw keyed by them costs no synchronisation with the host.

    Attributes:
        seed: int64, the run's seed.
        epoch: int64, from 0.
        step: int64, optimiser steps taken since the start of the run.
        fraction: float32 in [0, 1), the part of the run that is done.
    """

    seed: Tensor
    epoch: Tensor
    step: Tensor
    fraction: Tensor


class Step(NamedTuple):
    """What a method makes of a batch.

    Attributes:
        outputs: what the student said, for the training metric.
        losses: named, already weighted 0-d tensors; the loss is their sum.
        monitors: detached 0-d tensors to watch; never summed.
    """

    outputs: Any
    losses: dict[str, Tensor]
    monitors: dict[str, Tensor] = {}  # noqa: RUF012  never written to

    @property
    def total(self) -> Tensor:
        """The loss: the sum of all named terms."""
        return sum(self.losses.values(), start=next(iter(self.losses.values())).new_zeros(()))


class Needs(NamedTuple):
    """What a method wants of the data.

    Attributes:
        views: independent augmentations of each image.
        batch: fewest samples a process must see at once; 2 where a term needs a negative.
    """

    views: int = 1
    batch: int = 1
