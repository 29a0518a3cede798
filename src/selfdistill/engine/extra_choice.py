"""The choice of extra images that a method makes before each epoch."""

from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from ..core import Method, Progress
from .checkpoint import Checkpoint
from .evaluate import evaluation_context
from .processes import gather_rows
from .protocols import Batches, ChoosableBatches


class ExtraChoice:
    """Chooses where a method does; where it does not, all calls do nothing.

    Args:
        fabric: of the run.
        method: that chooses.
        batches: from whose extra images it chooses.
    """

    def __init__(self, fabric: Fabric, method: Method, batches: Batches) -> None:
        self.fabric, self.method = fabric, method
        self.batches = cast(ChoosableBatches, batches) if method.needs.chosen_extra else None
        self.indices: Tensor | None = None

    def choose(self, progress: Progress) -> None:
        """Score all extra images and choose among them, the same in every process."""
        if self.batches is None:
            return
        with evaluation_context(self.method, self.fabric):
            parts = [self.method.score_extra(batch.inputs) for batch in self.batches.pool()]
        scores = gather_rows(self.fabric, torch.cat(parts)).to(self.fabric.device)
        self._set(self.method.choose_extra(scores, progress).cpu())

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The group of a checkpoint's tensors that keeps the choice."""
        return {} if self.indices is None else {"extra": {"chosen": self.indices}}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take the choice that was made before the checkpoint, for an epoch that goes on."""
        if self.batches is not None and (saved := checkpoint.tensors.get("extra")):
            self._set(saved["chosen"])

    def _set(self, indices: Tensor) -> None:
        assert self.batches is not None
        self.indices = indices
        self.batches.choose(indices)
