"""Similarity of embeddings."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class MeanCosineSimilarity(Metric):
    """Mean cosine similarity of embeddings (B, D) with their targets, in −1 … 1."""

    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        self.total += F.cosine_similarity(outputs.float(), targets.float()).sum()
        self.images += len(outputs)

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.images
