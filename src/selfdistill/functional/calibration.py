"""Calibration of predicted probabilities."""

import torch
from torch import Tensor

BINS = 15


def expected_calibration_error(table: Tensor) -> float:
    r"""Expected calibration error in 0 … 1; nan without samples.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, eq. 3:

    .. math:: ECE = \sum_m \frac{|B_m|}{n} \left| acc(B_m) - conf(B_m) \right|

    Args:
        table: (bins, 3): samples, their mean confidence and accuracy; the latter two do not count
            in an empty bin.
    """
    samples, confidence, accuracy = table.double().unbind(1)
    gaps = torch.where(samples > 0, (accuracy - confidence).abs(), 0)
    return float((samples * gaps).sum() / samples.sum())
