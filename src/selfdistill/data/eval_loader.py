"""Batches for evaluation: each image once, as it is."""

from collections.abc import Iterator

import torch

from ..core import Batch, ConfigError
from .augment import normalize
from .decoding import fetch_rows
from .image_set import ImageSet
from .in_memory import InMemoryImages


class EvalLoader:
    """Batches for evaluation: in order, not augmented, every sample once over all processes.

    Of videos the central clips.

    The last batch may be smaller; a process may have no batch where there are few samples.

    Args:
        images: `InMemoryImages` ones are moved to the device once.
        batch_size: samples of one process at once.
        mean, std: one number per channel, of pixels in [0, 1].
        rank, world_size: index of this process, number of processes.
        device: of the batches.
        workers: processes that decode `ImageFiles` images.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        batch_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be 1 or more")
        self.device, self.workers, self.batch_size = torch.device(device), workers, batch_size
        self.images = images.to(self.device) if isinstance(images, InMemoryImages) else images
        self.targets, self.mean, self.std = images.targets.to(self.device), mean, std
        first, last = (len(images) * r // world_size for r in (rank, rank + 1))
        self.samples = torch.arange(first, last)

    def __len__(self) -> int:
        """Batches of this process."""
        return -(-len(self.samples) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        rows = self.samples.split(self.batch_size) if len(self.samples) else ()
        pictures = fetch_rows(self.images, rows, self.workers, self.device)
        for decoded, row in zip(pictures, rows, strict=True):
            index = row.to(self.device)
            yield Batch(normalize(decoded, self.mean, self.std), self.targets.fetch(index), index)
