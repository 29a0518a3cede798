"""How sure a classifier is, against how often it is right."""

import torch
from torch import Tensor
from torchmetrics import Metric

from ..functional.calibration import BINS


class ReliabilityTable(Metric):
    """A reliability table: samples by the probability of the class that they are taken for.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 2. Bins are of equal width and hold
    their upper end. `compute` gives (bins, 3): samples, their mean probability and the share that
    is right; the latter two are nan in an empty bin.

    Args:
        bins: how many.
    """

    full_state_update = False
    samples: Tensor
    confidence: Tensor
    right: Tensor

    def __init__(self, bins: int = BINS) -> None:
        super().__init__()
        self.bins = bins
        counts = torch.zeros(bins, dtype=torch.int64)
        self.add_state("samples", counts, dist_reduce_fx="sum")
        self.add_state("right", counts.clone(), dist_reduce_fx="sum")
        self.add_state("confidence", torch.zeros(bins), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in logits (B, K) and labels (B,)."""
        sure, taken = outputs.float().softmax(1).max(1)
        edges = torch.linspace(0, 1, self.bins + 1, device=sure.device)
        place = (torch.bucketize(sure, edges) - 1).clamp(0, self.bins - 1)
        self.samples.index_add_(0, place, torch.ones_like(place))
        self.right.index_add_(0, place, (taken == targets).long())
        self.confidence.index_add_(0, place, sure)

    def compute(self) -> Tensor:
        """The table."""
        means = torch.stack([self.confidence, self.right], 1) / self.samples[:, None]
        return torch.cat([self.samples[:, None], means], 1)
