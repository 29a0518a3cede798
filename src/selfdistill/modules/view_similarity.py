"""Similarities of turned images and plain ones, the self-supervised knowledge of SSKD."""

import torch.nn.functional as F
from torch import Tensor, nn

from .rotations import TURNS


class ViewSimilarity(nn.Module):
    """A projection of pooled features, and the cosines of turned images with plain ones.

    The self-supervision module of SSKD (Xu et al. 2020, https://arxiv.org/abs/2006.07114): two
    linear layers of equal width with ReLU between them.

    Args:
        width: of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, pooled: Tensor) -> Tensor:
        """Features (4B, C) of images as `turned` orders them -> cosines (3B, B) in fp32."""
        embeddings = F.normalize(self.layers(pooled).float())
        count = len(pooled) // TURNS
        plain, turned = embeddings.split([count, len(pooled) - count])
        cosines: Tensor = turned @ plain.T
        return cosines
