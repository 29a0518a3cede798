"""Parts of a training set in which every class keeps its share."""

from typing import TypeVar

import torch
from torch import Tensor

from ..core import DataError, keyed_random
from .images import Images

_SEED = 0  # not the run's: runs with different seeds must be compared on the same images
T = TypeVar("T", bound=Images)


def stratified(labels: Tensor, name: str) -> Tensor:
    """An order of the samples of which each beginning holds every class by its share.

    In the first k samples each class has its share of k, up to rounding.

    Args:
        labels: (N,) int64.
        name: what the order is for; orders of different names are independent.

    Returns:
        (N,) int64, places in `labels`.
    """
    order = keyed_random.permutation(len(labels), keyed_random.purpose(name), _SEED)
    by_class = order[labels[order].argsort(stable=True)]
    counts = torch.bincount(labels)
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[by_class]]
    place = torch.empty(len(labels), dtype=torch.float64)
    place[by_class] = (rank.double() + 0.5) / counts[
        labels[by_class]
    ]  # in (0, 1) within its own class
    return order[place[order].argsort(stable=True)]


def hold_out(train: T, held: int, name: str) -> tuple[T, T]:
    """Take `held` samples out of a training set: what remains, and what was taken."""
    order = stratified(train.labels, name)
    return train.take(order[held:].sort().values), train.take(order[:held].sort().values)


def hold_out_share(train: T, share: float) -> tuple[T, T | None]:
    """Hold out a share of the training images for validation; a share of 0 holds out none.

    Raises:
        DataError: the share is so small or so large that one of the two parts would be empty.
    """
    if not share:
        return train, None
    held = round(share * len(train))
    if not 0 < held < len(train):
        raise DataError(
            f"val_fraction={share:g} of {len(train)} training images leaves "
            f"{'no training' if held else 'no validation'} image; give 0 or a share between "
            f"{1 / len(train):.2g} and {1 - 1 / len(train):.2g}"
        )
    return hold_out(train, held, "validation")


def limited(train: T, limit: int | None) -> T:
    """At most `limit` of the images, every class by its share."""
    if limit is None or limit >= len(train):
        return train
    return train.take(stratified(train.labels, "limit")[:limit].sort().values)
