"""Training batches that bring what a teacher gives, read from a store or computed once."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from ..core import Batch
from ..data import Loader
from ..taps import Teacher
from .encoding import OutputEncoding
from .store import MISSING, OutputStore, StoredView

_FLUSHED_BYTES = 64 << 20  # of a view's rows in memory, before they are written


class CachedTeacherBatches:
    """The batches of a loader with `Batch.teacher_outputs`, and `teacher_pooled` if it is stored.

    Where the outputs of a whole batch are stored they are read; else the teacher is run on the
    batch, and what is missing is stored. What a step gets has always been through the encoding, so
    that it is the same whether it was read or not. At the end of an epoch the views of the samples
    that fill no whole batch are added, so the store is full after one cycle.

    Args:
        loader: its views must come again, see `Loader.view_cycle`, and depend on no run's seed.
        teacher: in evaluation mode, a `Teacher` where its pooled feature is stored; moved to the
            loader's device by its owner.
        encoding: of its outputs.
        store: of the same teacher, views and encoding.
        autocast: makes the context in which the teacher is run, of the training's precision.
    """

    def __init__(
        self,
        loader: Loader,
        teacher: nn.Module,
        encoding: OutputEncoding,
        store: OutputStore,
        autocast: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.loader, self.teacher, self.encoding = loader, teacher, encoding
        self.store, self.autocast = store, autocast

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over all images."""
        return self.loader.steps_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The batches of an epoch from step `start` on: for each step one per micro-batch."""
        order = self.loader.order(epoch)
        with self._opened(self.loader.view_epoch(epoch)) as views:
            steps = zip(self.loader.epoch(epoch, start), order[start:], strict=True)
            for micro_batches, samples in steps:
                pairs = zip(micro_batches, samples, strict=True)
                yield [self._with_outputs(batch, views, rows) for batch, rows in pairs]
            self._complete(epoch, order.flatten(0, 1), views)

    @contextmanager
    def _opened(self, epoch: int) -> Iterator[list[StoredView]]:
        """The stored views of an epoch; what was added is written, whatever ends the block."""
        views = [self.store.open(epoch, view) for view in range(self.loader.views)]
        try:
            yield views
        finally:
            for view in views:
                view.flush()

    def _with_outputs(self, batch: Batch, views: list[StoredView], samples: Tensor) -> Batch:
        if all(bool((view.places[samples] >= 0).all()) for view in views):
            rows = [self._gathered(view, samples) for view in views]
        else:
            rows = self._computed(batch, views, samples)
        outputs = tuple(map(self.encoding.decode, rows))
        pooled = tuple(map(self.encoding.decode_pooled, rows)) if self.encoding.pooled_width else ()
        return batch._replace(teacher_outputs=outputs, teacher_pooled=pooled)

    def _gathered(self, view: StoredView, samples: Tensor) -> dict[str, Tensor]:
        """The stored rows of samples, on the device."""
        rows = view.gather(samples)
        device = self.loader.device
        return {name: tensor.to(device, non_blocking=True) for name, tensor in rows.items()}

    @torch.no_grad()
    def _computed(
        self, batch: Batch, views: list[StoredView], samples: Tensor
    ) -> list[dict[str, Tensor]]:
        """The rows of each view of a batch, by the teacher or, as far as they are stored, read."""
        computed = []
        for view, images in zip(views, (batch.inputs, *batch.views), strict=True):
            with self.autocast():
                rows = self.encoding.encode(*self._taught(images))
            view.add(samples, rows)
            stored = (view.places[samples] >= 0).nonzero()[:, 0]
            if len(stored):
                known = self._gathered(view, samples[stored])
                rows = {
                    name: row.index_copy(0, stored.to(row.device), known[name])
                    for name, row in rows.items()
                }
            if view.pending_bytes >= _FLUSHED_BYTES:
                view.flush()
            computed.append(rows)
        return computed

    def _taught(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the teacher gives: outputs, and its pooled feature if that is stored."""
        if not self.encoding.pooled_width:
            return self.teacher(images), None
        outputs, _, pooled = cast(Teacher, self.teacher).forward_pooled(images)
        return outputs, pooled

    def _complete(self, epoch: int, order: Tensor, views: list[StoredView]) -> None:
        """Add what the epoch has not: samples that fill no batch, and steps before a resume."""
        if not self.store.writable:
            return
        left_out, size = self.loader.left_out(epoch), order.shape[1]
        # filled up with others, since kernels may round a smaller batch otherwise
        filler = order.flatten()[: -len(left_out) % size]
        rows = torch.cat([order, torch.cat([left_out, filler]).view(-1, size)])
        if lacking := [row for row in rows if _lacks(views, row)]:
            rows = torch.stack(lacking)
            for batch, samples in zip(self.loader.batches(rows, epoch), rows, strict=True):
                self._computed(batch, views, samples)


def _lacks(views: Iterable[StoredView], samples: Tensor) -> bool:
    """Whether an output of these samples is neither stored nor about to be."""
    return any(bool((view.places[samples] == MISSING).any()) for view in views)
