"""Confidence of a classifier against its accuracy."""

import torch
from torch import Tensor
from torchmetrics import Metric

from ..functional.calibration import BINS


class ReliabilityTable(Metric):
    """A reliability table: samples by the probability of their predicted class.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 2. Bins are of equal width and hold
    their upper end. `compute` gives (bins, 3): samples, their mean probability and accuracy; the
    latter two are nan in an empty bin.

    Args:
        bins: number of bins.
    """

    full_state_update = False
    samples: Tensor
    confidence: Tensor
    correct: Tensor

    def __init__(self, bins: int = BINS) -> None:
        super().__init__()
        self.bins = bins
        counts = torch.zeros(bins, dtype=torch.int64)
        self.add_state("samples", counts, dist_reduce_fx="sum")
        self.add_state("correct", counts.clone(), dist_reduce_fx="sum")
        self.add_state("confidence", torch.zeros(bins), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add logits (B, K) and labels (B,)."""
        confidence, predicted = outputs.float().softmax(1).max(1)
        edges = torch.linspace(0, 1, self.bins + 1, device=confidence.device)
        index = (torch.bucketize(confidence, edges) - 1).clamp(0, self.bins - 1)
        self.samples.index_add_(0, index, torch.ones_like(index))
        self.correct.index_add_(0, index, (predicted == targets).long())
        self.confidence.index_add_(0, index, confidence)

    def compute(self) -> Tensor:
        """The table."""
        means = torch.stack([self.confidence, self.correct], 1) / self.samples[:, None]
        return torch.cat([self.samples[:, None], means], 1)
