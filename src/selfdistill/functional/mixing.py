"""Mixup and CutMix of a batch, with draws that are functions of their keys."""

import math

import torch
from torch import Tensor

from ..core.keyed_random import uniform


def beta(concentration: float, purpose: int, *keys: Tensor | int) -> Tensor:
    r"""Draws of the symmetric Beta(a, a), one for each element of the broadcast keys (fp32).

    Exact for every a > 0 and without rejection, hence without waiting for the device. With T of
    Student's t distribution of 2a degrees of freedom, :math:`\frac12 (1 + T / \sqrt{2a + T^2})` is
    Beta(a, a), and Bailey (1994, https://doi.org/10.2307/2153537) makes T of two uniform numbers,

    .. math:: T = \sqrt{2a \, (U^{-1/a} - 1)} \, \cos 2\pi V.

    Args:
        concentration: a; small ones give draws near 0 and 1, and 1 is the uniform distribution.
        purpose, keys: of the draw, see `core/keyed_random.py`.
    """
    power = (1 - uniform(purpose, *keys, 0)) ** (1 / concentration)  # U^(1/a) in (0, 1]
    cosine = (2 * math.pi * uniform(purpose, *keys, 1)).cos()  # no float has a cosine of 0
    squared = (1 - power) * cosine.square()
    # (1 - |T| / √(2a + T²)) / 2, without the difference of two numbers near 1
    tail = power / (power + squared) / (1 + (squared / (power + squared)).sqrt()) / 2
    return torch.where(cosine < 0, tail, 1 - tail)


def batch_permutation(purpose: int, *keys: Tensor | int) -> Tensor:
    """A uniform permutation of 0 … B−1, (B,) int64, where the keys broadcast to (B,)."""
    return uniform(purpose, *keys).argsort(stable=True)


def mixup(x: Tensor, partners: Tensor, ratio: Tensor) -> Tensor:
    """Mixup of a batch with itself (Zhang et al. 2018, https://arxiv.org/abs/1710.09412, Eq. 1).

    Args:
        x: (B, ...): images, features or scores.
        partners: index of the other sample of each, (B,) int64.
        ratio: weight of a sample itself, in [0, 1], 0-d.
    """
    return ratio * x + (1 - ratio) * x[partners]


def cutmix_box(
    size: tuple[int, int], ratio: Tensor, purpose: int, *keys: Tensor | int
) -> tuple[Tensor, Tensor]:
    r"""Random boxes of CutMix (Yun et al. 2019, https://arxiv.org/abs/1905.04899).

    A box has :math:`\sqrt{1 - ratio}` of each side, in whole pixels, and a uniform center; it is
    clipped to the image, so the ratio is computed anew from its area.

    Args:
        size: (H, W) of the images.
        ratio: fraction of an image that is to stay, in [0, 1], before clipping: 0-d for one box,
            (B,) for one an image.
        purpose, keys: of the draw, see `core/keyed_random.py`; keys of the shape of `ratio`, or
            0-d.

    Returns:
        The mask of the partner's pixels, (H, W) or (B, H, W) bool, and the fraction that stays,
        0-d or (B,) fp32.
    """
    side = (1 - ratio).clamp_min(0).sqrt()
    inside = []
    for axis, length in enumerate(size):
        half = (length * side).floor() // 2
        center = (length * uniform(purpose, *keys, axis)).floor()
        pixels = torch.arange(length, device=ratio.device)
        inside.append(
            (pixels >= (center - half)[..., None]) & (pixels < (center + half)[..., None])
        )
    box = inside[0][..., :, None] & inside[1][..., None, :]
    return box, 1 - box.float().mean((-2, -1))


def cutmix(x: Tensor, partners: Tensor, box: Tensor) -> Tensor:
    """CutMix of a batch (B, C, H, W) with itself: the partner's pixels inside the box."""
    return torch.where(box, x[partners], x)
