"""Critics: small networks that score how well a local and a global feature go together.

Each takes a local view ``(B, C, H, W)`` and a global one ``(B, D)`` and returns the scores of the
pairs that belong together, ``(B, ...)``, and of pairs that do not, ``(B, ..., M)``. With a `shift`
(0-d integer tensor, 1 … B-1) the negatives are the local views of another image, rolled; without
one, all B-1 others of the batch. The global view stays as it is (MUSE, Eq. 5: the primed feature is
the shallow one).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional.mutual_information import roll_batch


class Scores(NamedTuple):
    """Critic scores of N local views an image.

    `positive` is (B, N), or (B, N, B) with inf where there is none; `negative` is (B, N, M) with
    -inf where there is none.
    """

    positive: Tensor
    negative: Tensor


class SeparableCritic(nn.Module):
    r"""A scaled dot product, :math:`\phi(local) \cdot \psi(global) / \sqrt{width}`.

    The encode-and-dot form of Deep InfoMax (https://arxiv.org/abs/1808.06670, section 3.1), divided
    by the root of the width, so that scores start near 0 and the loss near chance. φ is linear, ψ
    has two layers and a linear shortcut (two plain layers start near a saddle and stay there for
    epochs). Then :math:`\phi(x) \cdot \psi(g) = x \cdot W^\top \psi(g)`: the local side is never
    encoded, and all B² pairs cost one matrix product, whatever the width.

    Args:
        local, glob: channels of the two views.
        width: of the shared space.
    """

    def __init__(self, local: int, glob: int, width: int = 128) -> None:
        super().__init__()
        self.local = nn.Linear(local, width)
        self.shortcut = nn.Linear(glob, width)
        self.layers = nn.Sequential(
            nn.Linear(glob, width), nn.ReLU(), nn.Linear(width, width, bias=False)
        )

    def forward(
        self,
        local: Tensor,
        glob: Tensor,
        shift: Tensor | None = None,
        alike: Tensor | None = None,
    ) -> Scores:
        """Scores of N = H·W cells: with a shift one negative each, else all B images.

        `same_class_mask` (B, B) says which images belong together; None is each with itself alone.
        """
        encoded = (self.shortcut(glob) + self.layers(glob)) / self.local.out_features**0.5  # (B, U)
        query = encoded @ self.local.weight  # (B, C)
        offset = encoded @ self.local.bias  # (B,)
        cells = local.flatten(2).transpose(1, 2)  # (B, N, C)
        if shift is not None:
            positive = (cells * query[:, None]).sum(-1) + offset[:, None]
            other = roll_batch(cells, shift)
            negative = (other * query[:, None]).sum(-1) + offset[:, None]
            return Scores(positive, negative[..., None])
        # [image of the global view, cell, image of the cell]
        scores = (cells @ query.T + offset).transpose(0, 2)
        if alike is None:
            own = torch.eye(len(glob), dtype=torch.bool, device=glob.device)
            positive = scores.diagonal(dim1=0, dim2=2).T
            return Scores(positive, scores.masked_fill(own[:, None], -torch.inf))
        positive = scores.masked_fill(~alike[:, None], torch.inf)
        return Scores(positive, scores.masked_fill(alike[:, None], -torch.inf))


class ConcatCritic(nn.Module):
    """1×1 convolutions over the local map with the global vector beside each cell.

    The concat-and-convolve critic of Deep InfoMax (Fig. 4), the closest to what MUSE describes. The
    first layer is split into a local and a global part: the same function as concatenating
    first, but the global half is computed once an image instead of once a cell and pair.

    Args:
        local, glob: channels of the two views.
        width: of both hidden layers.
    """

    def __init__(self, local: int, glob: int, width: int = 512) -> None:
        super().__init__()
        self.local = nn.Conv2d(local, width, 1)
        self.glob = nn.Linear(glob, width, bias=False)
        self.rest = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 1)
        )
        bound = (local + glob) ** -0.5  # the start that one layer over both inputs would have
        for tensor in (self.local.weight, self.local.bias, self.glob.weight):
            nn.init.uniform_(tensor, -bound, bound)  # type: ignore[arg-type]

    def forward(self, local: Tensor, glob: Tensor, shift: Tensor) -> Scores:
        """Scores (B, H·W) and (B, H·W, 1)."""
        first = self.local(local)
        beside = self.glob(glob)[..., None, None]
        positive = self.rest(first + beside)
        negative = self.rest(roll_batch(first, shift) + beside)
        return Scores(positive.flatten(1), negative.flatten(1)[..., None])


class GlobalCritic(nn.Module):
    """One score an image: convolutions summarize the local map, layers join the global view.

    The global critic of Deep InfoMax as its public PyTorch port builds it (two 3×3 convolutions,
    three linear layers), with padding and a pooling to 4×4, so that maps of any size fit.

    Args:
        local, glob: channels of the two views.
        width: of the two hidden linear layers.
    """

    def __init__(self, local: int, glob: int, width: int = 512) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(local, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 32, 3, padding=1)
        )
        self.joined = nn.Linear(32 * 16 + glob, width)
        self.rest = nn.Sequential(
            nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, local: Tensor, glob: Tensor, shift: Tensor) -> Scores:
        """Scores (B, 1) and (B, 1, 1)."""
        summary = F.adaptive_avg_pool2d(self.encode(local), 4).flatten(1)  # (B, 512)
        weight_local, weight_glob = self.joined.weight.split((32 * 16, glob.shape[1]), dim=1)
        first, beside = (
            F.linear(summary, weight_local),
            F.linear(glob, weight_glob, self.joined.bias),
        )
        positive = self.rest(first + beside)
        negative = self.rest(roll_batch(first, shift) + beside)
        return Scores(positive, negative[..., None])


CRITICS = {"separable": SeparableCritic, "concat": ConcatCritic, "global": GlobalCritic}
"""Critic classes by the name a user gives; only the separable one can afford all pairs."""
