"""A learned Gaussian of one feature given another."""

import math

import torch
from torch import Tensor, nn

from ..functional.information_bounds import variational_gaussian

INITIAL_RAW_VARIANCE = math.log(math.expm1(5 - 1e-5))  # softplus of it plus 1e-5 is 5


class VariationalGaussian(nn.Module):
    """The variational bound of VID: a network predicts the mean, each channel has one variance.

    Ahn et al. 2019, https://arxiv.org/abs/1904.05835, Eq. 5 and 6, as the CRD benchmark builds it:
    three 1×1 convolutions without bias or batch norm, ReLU between them, all variances 5 at first.

    Args:
        source, target: channels of the given map and of the predicted one.
    """

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(source, target, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(target, target, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(target, target, 1, bias=False),
        )
        self.raw_variance = nn.Parameter(torch.full((target,), INITIAL_RAW_VARIANCE))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Negated bound of maps (B, source, H, W) and (B, target, H, W), 0-d, up to a constant."""
        return variational_gaussian(target, self.mean(source), self.raw_variance)
