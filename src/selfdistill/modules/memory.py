"""A vector for each training image, remembered from step to step."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class MemoryBank(nn.Module):
    """One embedding a training image, a moving average of those that the image had so far.

    The memory of Wu et al. 2018, https://arxiv.org/abs/1805.01978, as contrastive distillation uses
    it (https://arxiv.org/abs/1910.10699). Rows never carry a gradient, and all processes hold the
    same ones.

    Args:
        samples: rows, N.
        width: of an embedding, D.
        momentum: share of its old value that a row keeps, in [0, 1).
    """

    rows: Tensor

    def __init__(self, samples: int, width: int, momentum: float = 0.5) -> None:
        super().__init__()
        self.momentum = momentum
        bound = (3 / width) ** 0.5  # rows of length 1 on average
        self.register_buffer("rows", torch.empty(samples, width).uniform_(-bound, bound))

    def forward(self, embedding: Tensor, index: Tensor) -> Tensor:
        """Dot products of embeddings (B, D) with M rows each, `index` (B, M) -> (B, M), in fp32."""
        (samples, width), many = self.rows.shape, index.shape[1]
        embedding = embedding.float()
        with full_precision(embedding):
            if samples <= many * width:  # all of them take less memory than the rows of each
                return (embedding @ self.rows.T).gather(1, index)
            return torch.einsum("bd,bmd->bm", embedding, self.rows[index])

    @torch.no_grad()
    def update(self, index: Tensor, embedding: Tensor) -> None:
        """Move the rows `index` (n,) towards embeddings (n, D) of unit length, and back to it.

        What other processes give is taken in, too. A row that is named more than once moves once,
        towards the first of its embeddings, so that the outcome depends on no order of writing.
        """
        index, embedding = gathered(index), gathered(embedding.float())
        first = (index[:, None] == index).int().argmax(1)
        moved = self.momentum * self.rows[index] + (1 - self.momentum) * embedding[first]
        self.rows.index_copy_(0, index, F.normalize(moved))


def gathered(x: Tensor) -> Tensor:
    """(n, ...) of all processes, one after the other; just `x` where there is only one."""
    if not (dist.is_available() and dist.is_initialized()):
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Inside, autocast leaves products of fp32 tensors on the device of `x` as they are."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
