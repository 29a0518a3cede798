"""For each image another one of its class."""

from torch import Tensor

from ..core import keyed_random
from ..modules.class_draws import ClassDraws

_PARTNER = keyed_random.purpose("partner")


class SameClassSampler:
    """Draws a uniformly random image of the same class, which may be the image itself.

    A draw is a function of (seed, epoch, index): it depends neither on the batch nor on the process
    or worker that loads the image.

    Args:
        labels: of all training images, (N,) int64.
        seed: key of every draw.
    """

    def __init__(self, labels: Tensor, seed: int) -> None:
        self.draws, self.seed = ClassDraws(labels.cpu()), seed

    def draw(self, epoch: int, index: Tensor) -> Tensor:
        """An image of the same class for each of these, int64 of any shape, on the CPU."""
        return self.draws.same(index, keyed_random.bits(_PARTNER, self.seed, epoch, index))
