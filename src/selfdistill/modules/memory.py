"""A memory bank of one embedding for each training image."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class MemoryBank(nn.Module):
    """One embedding a training image: the moving average of the image's past embeddings.

    The memory of Wu et al. 2018, https://arxiv.org/abs/1805.01978, as contrastive distillation uses
    it (https://arxiv.org/abs/1910.10699). Rows never carry a gradient, and all processes hold the
    same ones.

    Args:
        samples: rows, N.
        width: dimension D of an embedding.
        momentum: fraction of its old value that an updated row keeps, in [0, 1).
    """

    memory_buffers = ("rows",)
    rows: Tensor

    def __init__(self, samples: int, width: int, momentum: float = 0.5) -> None:
        super().__init__()
        self.momentum = momentum
        bound = (3 / width) ** 0.5  # rows of length 1 on average
        self.register_buffer("rows", torch.empty(samples, width).uniform_(-bound, bound))

    def forward(self, embedding: Tensor, index: Tensor) -> Tensor:
        """Dot products of embeddings (B, D) with M rows each, `index` (B, M) -> (B, M), in fp32."""
        samples, width = self.rows.shape
        embedding = embedding.float()
        with full_precision(embedding):
            if samples <= index.shape[1] * width:  # all products take less memory than the rows
                return (embedding @ self.rows.T).gather(1, index)
            return torch.einsum("bd,bmd->bm", embedding, self.rows[index])

    @torch.no_grad()
    def update(self, index: Tensor, embedding: Tensor) -> None:
        """Average the rows `index` (n,) with embeddings (n, D) of unit length, and normalize them.

        The updates of all processes are applied, see `gather_updates`.
        """
        index, embedding = gather_updates(index, embedding)
        moved = self.momentum * self.rows[index] + (1 - self.momentum) * embedding
        self.rows.index_copy_(0, index, F.normalize(moved))


def gather_updates(index: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `index` (n,) and values (n, D) of all processes, in fp32, where each row has one value.

    A row with several updates takes the first of them alone, so that the result depends on no order
    of writing.
    """
    index, values = all_gather(index), all_gather(values.float())
    return index, values[(index[:, None] == index).int().argmax(1)]


def all_gather(x: Tensor) -> Tensor:
    """(n, ...) of all processes, concatenated in their order; `x` itself in a single process."""
    if process_count() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(process_count())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def process_count() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Context in which autocast does not lower products on the device of `x`."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
