"""What a ReLU takes from a feature."""

from torch import Tensor


def negative_share(x: Tensor) -> Tensor:
    """The part of the mean square that is of negative values, in [0, 1], 0-d."""
    squares = x.float().square()
    return (squares * (x < 0)).sum() / squares.sum().clamp(min=1e-12)
