"""Weights that grow in the course of training."""

from torch import Tensor


def sigmoid_rampup(fraction: Tensor) -> Tensor:
    r""":math:`\exp(-5 (1 - t)^2)` of t, clamped to 0 … 1: from 0.0067 to 1.

    The ramp-up of Laine and Aila 2017, https://arxiv.org/abs/1610.02242.
    """
    return (-5 * (1 - fraction.clamp(0, 1)).square()).exp()
