r"""Bounds on mutual information as losses, and the scores that they are computed from.

A critic scores how well two features go together, of pairs that belong together (positives, the
joint distribution) and of pairs that do not (negatives, the product of the marginals). Every loss
here is to be minimized, 0-d, in nats, and computed in fp32. The Jensen-Shannon loss stands in
`modules/mutual_information.py`; it and InfoNCE are positive throughout, as a product of losses
demands (MUSE, Eq. 6).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHANCE = 2 * math.log(2)
"""The Jensen-Shannon loss of a critic that knows nothing: 2 log 2 ≈ 1.3863."""


class Scores(NamedTuple):
    """Scores of a critic.

    Attributes:
        positive: of any shape (...); inf where there is no pair (Jensen-Shannon only).
        negative: (..., M), M negatives for each positive; -inf where there is no pair.
        with_own: whether `negative` is of all pairs, (B, N, B), so that negative[i, :, i] are the
            positives, which are not to count. To leave them in is cheaper than to mask them.
    """

    positive: Tensor
    negative: Tensor
    with_own: bool = False


def info_nce(positive: Tensor, negative: Tensor, with_own: bool = False) -> Tensor:
    r"""The InfoNCE loss (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, Eq. 4).

    The mean of :math:`-\log(e^{s_+} / (e^{s_+} + \sum_j e^{s_j}))`; log(M + 1) minus it bounds the
    mutual information from below. M = 1 compares with a single negative.
    """
    positive, scores = positive.float(), negative.float()
    if not with_own:
        scores = torch.cat([positive.unsqueeze(-1), scores], dim=-1)  # (..., 1 + M)
    return (scores.logsumexp(-1) - positive).mean()


def donsker_varadhan(positive: Tensor, negative: Tensor, with_own: bool = False) -> Tensor:
    r"""The negated Donsker-Varadhan bound (MINE, https://arxiv.org/abs/1801.04062, Eq. 5).

    .. math:: L = \log E_{neg}[e^T] - E_{pos}[T]

    The plain batch estimate; the moving-average correction of MINE's gradient is not applied.
    """
    negative = _without_own(negative.float()) if with_own else negative.float()
    mean_exp = negative.flatten().logsumexp(0) - num_scores(negative).log()
    return mean_exp - positive.float().mean()


def nwj(positive: Tensor, negative: Tensor, with_own: bool = False) -> Tensor:
    r"""The negated bound of Nguyen, Wainwright and Jordan (https://arxiv.org/abs/0809.0853).

    .. math:: L = E_{neg}[e^{T-1}] - E_{pos}[T]
    """
    negative = _without_own(negative.float()) if with_own else negative.float()
    return (negative - 1).exp().sum() / num_scores(negative) - positive.float().mean()


BOUNDS = {"infonce": info_nce, "dv": donsker_varadhan, "nwj": nwj}


def _without_own(negative: Tensor) -> Tensor:
    """Scores (B, N, B) with -inf for each positive."""
    own = torch.eye(len(negative), dtype=torch.bool, device=negative.device)
    return negative.masked_fill(own[:, None], -torch.inf)


def num_scores(scores: Tensor) -> Tensor:
    """The number of scores above -inf, at least 1, 0-d; -inf adds nothing to any sum here."""
    return (scores > -torch.inf).sum().clamp(min=1)


def mean_size(scores: Scores) -> Tensor:
    """The mean absolute value of positive scores, 0-d, detached; those of no pair left out."""
    positive = scores.positive.detach().float()
    if scores.with_own:  # of all pairs, none of which is missing
        return positive.abs().mean()
    scored = positive < torch.inf
    return positive.masked_fill(~scored, 0).abs().sum() / scored.sum()


def variational_gaussian(target: Tensor, mean: Tensor, raw_variance: Tensor) -> Tensor:
    r"""The variational Gaussian bound of VID (https://arxiv.org/abs/1904.05835, Eq. 5 and 6).

    .. math:: L = E\left[\log\sigma_c + \frac{(t - \mu)^2}{2\sigma_c^2}\right], \quad
        \sigma_c^2 = sp(\alpha_c) + 10^{-5}

    Up to a constant the negated lower bound of I(target; source), with `mean` computed from the
    source.

    Args:
        target, mean: (B, C, ...).
        raw_variance: :math:`\alpha`, one number a channel, (C,).
    """
    variance = F.softplus(raw_variance.float()) + 1e-5
    variance = variance.view(1, -1, *[1] * (target.dim() - 2))
    squared = (target.float() - mean.float()).square()
    return 0.5 * (variance.log() + squared / variance).mean()


def roll_batch(x: Tensor, shift: Tensor) -> Tensor:
    """The batch (B, ...) rolled by `shift` (0-d, 1 … B-1): every sample meets another one.

    A random permutation would leave some sample in place with probability 0.63, and a positive pair
    would be called a negative.
    """
    order = (torch.arange(len(x), device=x.device) + shift) % len(x)
    return x[order]
