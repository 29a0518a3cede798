"""Divergences between the class distributions of two heads, and what is done to their scores."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def kl_divergence(
    student: Tensor, teacher: Tensor, temperature: float, weight: Tensor | None = None
) -> Tensor:
    r"""Soft-label distillation (Hinton et al. 2015, https://arxiv.org/abs/1503.02531).

    .. math:: \tau^2 \; KL\left(softmax(z_t / \tau) \,\|\, softmax(z_s / \tau)\right)

    Summed over classes (dim 1), averaged over samples and positions, in fp32. The gradient flows to
    both; detach the side that is the target. `KLDivLoss(reduction="mean")` would divide by the
    number of classes too, which makes the term a hundred times too small on CIFAR-100.

    Args:
        student, teacher: logits (B, K) or (B, K, ...).
        temperature: :math:`\tau` > 0.
        weight: (B,) or (B, ...), ≥ 0, of each sample and position in the mean; None for 1. Where
            all weights are 0 the result is 0.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    log_teacher = finite(F.log_softmax(teacher.float() / temperature, dim=1))
    pointwise = F.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    return weighted_mean(pointwise.sum(1), weight) * temperature**2


def finite(log_target: Tensor) -> Tensor:
    """Log-probabilities without −∞, so that a class of probability 0 adds 0 to a divergence."""
    return log_target.clamp(min=torch.finfo(log_target.dtype).min)


def standardize_logits(logits: Tensor) -> Tensor:
    """Logits (B, K, ...) of mean 0 and standard deviation 1 over the classes (dim 1), in fp32.

    Sun et al. 2024, https://arxiv.org/abs/2403.01427: done to student and teacher before they are
    softened, it leaves the order of the classes and their relative distances to be matched, and not
    how far the logits are spread. The deviation has K - 1 in its denominator, as in the authors'
    code, and 1e-7 is added to it; equal logits become 0.
    """
    logits = logits.float()
    centered = logits - logits.mean(1, keepdim=True)
    return centered / (logits.std(1, keepdim=True) + 1e-7)


def soft_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits with distributions over the classes, both (B, K, ...), in fp32.

    Summed over the classes (dim 1), averaged over samples and positions. The gradient flows to
    both.

    Args:
        logits, target: scores, and probabilities or other weights of the classes.
        weight: (B,) or (B, ...), ≥ 0, of each sample and position in the mean; None for 1.
    """
    return weighted_mean(-(target * logits.float().log_softmax(1)).sum(1), weight)


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of values with weights ≥ 0 of their shape; plain without weights, 0 if all are 0."""
    if weight is None:
        return values.mean()
    return (weight * values).sum() / weight.sum().clamp(min=1e-6)


def mask_weights(mask: Tensor | None, size: Sequence[int]) -> Tensor | None:
    """Weights of the cells of a coarser map, (B, h, w): the fraction of each that is in the mask.

    Args:
        mask: (B, H, W) bool; None for a mask of everything, whose weights are None.
        size: h and w.
    """
    if mask is None:
        return None
    return F.interpolate(mask[:, None].float(), size=tuple(size), mode="area")[:, 0]
