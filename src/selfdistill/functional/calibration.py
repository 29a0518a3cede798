"""Whether a network is as often right as it is sure to be."""

import torch
from torch import Tensor

BINS = 15


def expected_calibration_error(table: Tensor) -> float:
    r"""The expected calibration error, a fraction; nan of no samples.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, eq. 3:

    .. math:: ECE = \sum_m \frac{|B_m|}{n} \left| acc(B_m) - conf(B_m) \right|

    Args:
        table: (bins, 3): samples, their mean confidence and the share that is right; what an empty
            bin has in the latter two does not count.
    """
    samples, confidence, right = table.double().unbind(1)
    gaps = torch.where(samples > 0, (right - confidence).abs(), 0)
    return float((samples * gaps).sum() / samples.sum())
