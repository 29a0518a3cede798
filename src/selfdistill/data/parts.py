"""What every source hands to `load`."""

from typing import NamedTuple

from .images import Images

Moments = tuple[tuple[float, ...], tuple[float, ...]]


class Parts(NamedTuple):
    """A data set as its source has it, before any splitting, limiting or resizing.

    Attributes:
        train, val, test: the parts that the source itself tells apart; all of one kind.
        classes: names, in the order of the labels.
        flip: whether a mirrored image keeps its meaning.
        moments: published mean and standard deviation per channel; None to compute them.
    """

    train: Images
    val: Images | None
    test: Images | None
    classes: list[str]
    flip: bool
    moments: Moments | None = None
