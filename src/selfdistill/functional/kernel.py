"""Gram matrices, and the maximum mean discrepancy between sets of vectors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def gram(x: Tensor, y: Tensor) -> Tensor:
    """All inner products (..., N, M) of vectors (..., N, D) and (..., M, D).

    In fp32 under autocast, too: callers take differences of nearly equal products.
    """
    device = "cpu" if x.is_meta else x.device.type  # autocast knows no meta device
    with torch.autocast(device, enabled=False):
        return x.float() @ y.float().mT


def channel_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    r"""Squared maximum mean discrepancy between the channels of two maps, kernel (x·y)².

    Neuron selectivity transfer (Huang and Wang 2017, https://arxiv.org/abs/1707.01219, Eq. 8): a
    channel's map, scaled to unit length, is one vector of H·W numbers; the two sets of them are
    compared. Channels may differ in number. With :math:`G_x = \frac{1}{C} \sum_c x_c x_c^\top` the
    value is :math:`\lVert G_x - G_y \rVert_F^2`; it is computed from the three Gram matrices, as
    the kernel trick wants, in fp32.

    Args:
        x, y: (B, C, H, W) and (B, D, H, W).

    Returns:
        The mean over the batch, a 0-d tensor of 0 or more.
    """
    x, y = (F.normalize(z.float().flatten(2), dim=2) for z in (x, y))  # (B, C, N)
    return _mean_kernel(x, x) + _mean_kernel(y, y) - 2 * _mean_kernel(x, y)


def _mean_kernel(x: Tensor, y: Tensor) -> Tensor:
    return gram(x, y).square().mean()
