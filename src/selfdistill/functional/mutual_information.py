r"""Mutual information as a loss, from the scores of a critic.

A critic says how well two features go together. It is shown pairs that belong together (positives,
the joint distribution) and pairs that do not (negatives, the product of the marginals). Every
estimator here takes

- `positive`: scores of any shape ``(...)``; inf marks a place without one (Jensen-Shannon only),
- `negative`: scores ``(..., M)``, M negatives for each positive; -inf marks a place without one,

and returns a 0-d loss in nats, to be minimized, computed in fp32. Only the Jensen-Shannon and
InfoNCE losses are positive throughout, as a product of losses demands (MUSE, Eq. 6).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CHANCE = 2 * math.log(2)
"""The Jensen-Shannon loss of a critic that knows nothing: 2 log 2 ≈ 1.3863."""


def jensen_shannon(positive: Tensor, negative: Tensor) -> Tensor:
    r"""The Jensen-Shannon loss of MUSE (https://arxiv.org/abs/2110.12606), Eq. 5.

    .. math:: L = E_{neg}[sp(T)] + E_{pos}[sp(-T)], \quad sp(a) = \log(1 + e^a)

    Eq. 5 writes the second term as :math:`-E[-sp(-T)]`, which is the same. Its optimum is
    :math:`2\log 2 - 2\,JSD(p(x,y)\,\|\,p(x)p(y))`, in (0, 2 log 2]. The code of Deep InfoMax shifts
    both expectations by log 2, which makes the loss negative; a product of losses then means
    nothing, so we do not.
    """
    positive, negative = positive.float(), negative.float()
    missed = F.softplus(-positive).sum() / _count(-positive)
    return missed + F.softplus(negative).sum() / _count(negative)


def info_nce(positive: Tensor, negative: Tensor) -> Tensor:
    r"""InfoNCE (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, Eq. 4).

    The mean of :math:`-\log(e^{s_+} / (e^{s_+} + \sum_j e^{s_j}))`; log(M + 1) minus it bounds the
    mutual information from below. M = 1 compares with a single negative.
    """
    scores = torch.cat([positive.float().unsqueeze(-1), negative.float()], dim=-1)  # (..., 1 + M)
    return (scores.logsumexp(-1) - scores[..., 0]).mean()


def donsker_varadhan(positive: Tensor, negative: Tensor) -> Tensor:
    r"""The negated Donsker-Varadhan bound (MINE, https://arxiv.org/abs/1801.04062, Eq. 5).

    .. math:: L = \log E_{neg}[e^T] - E_{pos}[T]

    The plain batch estimate; the moving-average correction of MINE's gradient is not applied.
    """
    negative = negative.float()
    mean_exp = negative.flatten().logsumexp(0) - _count(negative).log()
    return mean_exp - positive.float().mean()


def nwj(positive: Tensor, negative: Tensor) -> Tensor:
    r"""The negated bound of Nguyen, Wainwright and Jordan (https://arxiv.org/abs/0809.0853).

    .. math:: L = E_{neg}[e^{T-1}] - E_{pos}[T]
    """
    negative = negative.float()
    return (negative - 1).exp().sum() / _count(negative) - positive.float().mean()


def _count(scores: Tensor) -> Tensor:
    """How many places hold a score, 1 or more; -inf adds nothing to any sum here, nor counts."""
    return (scores > -torch.inf).sum().clamp(min=1)


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


ESTIMATORS = {
    "jsd": jensen_shannon,
    "infonce": info_nce,
    "dv": donsker_varadhan,
    "nwj": nwj,
}
POSITIVE_ESTIMATORS = frozenset({"jsd", "infonce"})
"""Those whose loss stays above zero, so that a product of two falls with each of them."""


def roll_batch(x: Tensor, shift: Tensor) -> Tensor:
    """(B, ...) rolled along the batch by `shift` (0-d, 1 … B-1): every sample meets another one.

    A random permutation would not do: with probability .37 it leaves some sample where it is, and a
    positive pair is called a negative.
    """
    order = (torch.arange(len(x), device=x.device) + shift) % len(x)
    return x[order]
