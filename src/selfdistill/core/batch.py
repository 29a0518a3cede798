"""What goes into a training step and what comes out of it."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """One training batch on its device.

    Attributes:
        inputs: images, (B, C, H, W) float, normalized.
        targets: what the task's loss takes; for classification (B,) int64.
        indices: of the samples in the training set, (B,) int64.
        views: further independent augmentations of the same images, as many as `Needs.views` − 1.
        same_class_inputs: for each image another one of its class (or itself), (B, C, H, W),
            augmented on its own; None unless `Needs.same_class`.
    """

    inputs: Tensor
    targets: Any
    indices: Tensor
    views: tuple[Tensor, ...] = ()
    same_class_inputs: Tensor | None = None


class Progress(NamedTuple):
    """Where training stands: 0-d int64 tensors on the batch's device.

    Tensors, not numbers: a compiled step would be compiled anew for each value of a number, and a
    draw keyed by them costs no synchronization with the host.

    Attributes:
        seed: the run's seed.
        epoch: from 0.
        step: optimizer steps taken since the start of the run.
        total: optimizer steps of the whole run.
    """

    seed: Tensor
    epoch: Tensor
    step: Tensor
    total: Tensor

    @property
    def fraction(self) -> Tensor:
        """The part of the run that is done, in [0, 1), float32."""
        return self.step.to(torch.float32) / self.total


class StepOutput(NamedTuple):
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
    """What a method wants of data and task.

    Attributes:
        views: independent augmentations of each image.
        batch: fewest samples a process must see at once; 2 where a term needs a negative.
        same_class: with each image another one of its class, `Batch.same_class_inputs`.
        image_labels: the task gives each image one class label (`Task.image_labels`).
        class_scores: outputs are class scores along dim 1 and targets a tensor
            (`Task.class_scores`).
        dense_scores: outputs are scores of every place, (B, K, H, W) (`Task.dense_scores`).
    """

    views: int = 1
    batch: int = 1
    same_class: bool = False
    image_labels: bool = False
    class_scores: bool = False
    dense_scores: bool = False

    def __or__(self, other: "Needs") -> "Needs":
        """What satisfies both."""
        merged: Iterable[Any] = map(max, self, other)
        return Needs(*merged)
