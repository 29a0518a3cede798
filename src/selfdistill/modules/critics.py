"""Critics: how well the cells of a map and a vector go together, as scores."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional.information_bounds import Scores, roll_batch
from .global_critic import GlobalCritic


class SeparableCritic(nn.Module):
    r"""A scaled dot product, :math:`\phi(cell) \cdot \psi(vector) / \sqrt{width}`.

    The encode-and-dot form of Deep InfoMax (https://arxiv.org/abs/1808.06670, section 3.1), divided
    by the root of the width, so that scores start near 0 and the loss near chance. φ is linear, ψ
    has two layers and a linear shortcut (two plain layers stay at a saddle for epochs). Then
    :math:`\phi(x) \cdot \psi(g) = x \cdot W^\top \psi(g)`: the cells are never encoded, and all B²
    pairs cost one matrix product, whatever the width.

    Args:
        map_channels, vector_channels: C and D.
        width: of the shared space.
    """

    def __init__(self, map_channels: int, vector_channels: int, width: int = 128) -> None:
        super().__init__()
        self.local = nn.Linear(map_channels, width)
        self.shortcut = nn.Linear(vector_channels, width)
        self.layers = nn.Sequential(
            nn.Linear(vector_channels, width), nn.ReLU(), nn.Linear(width, width, bias=False)
        )

    def forward(
        self,
        feature_map: Tensor,
        vector: Tensor,
        shift: Tensor | None = None,
        same_class_mask: Tensor | None = None,
    ) -> Scores:
        """Scores of N = H·W cells; the negatives of a vector are cells of other images.

        With a shift (0-d, 1 … B-1) those of one image, the batch rolled; without, of all. Positive
        are the pairs in `same_class_mask` (B, B) or, without one, each image with itself.
        """
        encoded = (self.shortcut(vector) + self.layers(vector)) / self.local.out_features**0.5
        query = encoded @ self.local.weight  # (B, C)
        offset = encoded @ self.local.bias  # (B,)
        cells = feature_map.flatten(2).transpose(1, 2)  # (B, N, C)
        if shift is not None:
            positive = (cells * query[:, None]).sum(-1) + offset[:, None]
            rolled = roll_batch(cells, shift)
            negative = (rolled * query[:, None]).sum(-1) + offset[:, None]
            return Scores(positive, negative[..., None])
        # [image of the vector, cell, image of the cell]
        scores = F.linear(cells, query, offset).transpose(0, 2)
        if same_class_mask is None:
            return Scores(scores.diagonal(dim1=0, dim2=2).T, scores, with_own=True)
        positive = scores.masked_fill(~same_class_mask[:, None], torch.inf)
        return Scores(positive, scores.masked_fill(same_class_mask[:, None], -torch.inf))


class ConcatCritic(nn.Module):
    """1×1 convolutions over the map with the vector concatenated to each cell.

    The concat-and-convolve critic of Deep InfoMax (Fig. 4), the closest to what MUSE describes. Its
    first layer is split in two: the same function, but the vector's part is computed once an image.

    Args:
        map_channels, vector_channels: C and D.
        width: of both hidden layers.
    """

    def __init__(self, map_channels: int, vector_channels: int, width: int = 512) -> None:
        super().__init__()
        self.local = nn.Conv2d(map_channels, width, 1)
        self.vector = nn.Linear(vector_channels, width, bias=False)
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 1)
        )
        # the start that one layer over both inputs would have
        bound = (map_channels + vector_channels) ** -0.5
        for tensor in (self.local.weight, self.local.bias, self.vector.weight):
            nn.init.uniform_(tensor, -bound, bound)  # type: ignore[arg-type]

    def forward(self, feature_map: Tensor, vector: Tensor, shift: Tensor) -> Scores:
        """Scores (B, H·W) and (B, H·W, 1); `shift` as in `SeparableCritic`."""
        if feature_map.dim() == 5:  # a clip's; where a place lies does not matter here
            feature_map = feature_map.flatten(3)
        local, from_vector = self.local(feature_map), self.vector(vector)[..., None, None]
        positive = self.head(local + from_vector)
        negative = self.head(roll_batch(local, shift) + from_vector)
        return Scores(positive.flatten(1), negative.flatten(1)[..., None])


CRITICS = {"separable": SeparableCritic, "concat": ConcatCritic, "global": GlobalCritic}
"""Critic classes by the name a user gives; only the separable one can afford all pairs."""
