"""Stratified subsets of a training set."""

from typing import TypeVar

import torch
from torch import Tensor

from ..core import DataError, keyed_random
from .image_set import ImageSet

_SEED = 0  # not the run's: runs with different seeds must be compared on the same images
T = TypeVar("T", bound=ImageSet)


def stratified_order(labels: Tensor, name: str) -> Tensor:
    """A random order of the samples whose every prefix is stratified.

    Among the first k samples each class has its fraction of k, up to rounding.

    Args:
        labels: (N,) int64.
        name: purpose of the order; orders of different purposes are independent.

    Returns:
        (N,) int64, indices into `labels`.
    """
    order = keyed_random.permutation(len(labels), keyed_random.purpose(name), _SEED)
    by_class = order[labels[order].argsort(stable=True)]
    counts = torch.bincount(labels)
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[by_class]]
    quantile = torch.empty(len(labels), dtype=torch.float64)  # of its class, in (0, 1)
    quantile[by_class] = (rank.double() + 0.5) / counts[labels[by_class]]
    return order[quantile[order].argsort(stable=True)]


def hold_out(train: T, count: int, name: str) -> tuple[T, T]:
    """Split a training set, stratified: the remaining samples, and `count` held-out ones."""
    order = stratified_order(train.labels, name)
    return train.take(order[count:].sort().values), train.take(order[:count].sort().values)


def hold_out_fraction(train: T, fraction: float) -> tuple[T, T | None]:
    """Hold out a fraction of the training images for validation; 0 holds out none.

    Raises:
        DataError: one of the two splits would be empty.
    """
    if not fraction:
        return train, None
    count = round(fraction * len(train))
    if not 0 < count < len(train):
        raise DataError(
            f"val_fraction={fraction:g} of {len(train)} training images leaves "
            f"{'no training' if count else 'no validation'} image; give 0 or a fraction between "
            f"{1 / len(train):.2g} and {1 - 1 / len(train):.2g}"
        )
    return hold_out(train, count, "validation")


def subsample(train: T, max_images: int | None) -> T:
    """A stratified subset of at most `max_images` images; None for all."""
    if max_images is None or max_images >= len(train):
        return train
    return train.take(stratified_order(train.labels, "limit")[:max_images].sort().values)
