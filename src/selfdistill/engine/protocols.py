"""What the training loop is given by others: batches, and the files that made the run."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from torch import Tensor

from ..core import Batch


class Batches(Protocol):
    """Training batches of this process, addressed by epoch and step."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """Micro-batches of each optimizer step of an epoch, from step `start` on."""


class ChoosableBatches(Batches, Protocol):
    """Training batches with extra images, of which some may be chosen."""

    def pool(self) -> Iterable[Batch]:
        """This process's share of all extra images, in order, not augmented."""

    def choose(self, indices: Tensor) -> None:
        """Take only these extra images, (M,) int64, from now on."""


class Origin(Protocol):
    """The files that made a run, kept in its checkpoints, which rest on them."""

    @property
    def texts(self) -> Mapping[str, str]:
        """Their contents by name."""

    def check(self, saved: Mapping[str, str]) -> None:
        """Raise unless a checkpoint of another `texts` is one of this run."""
