"""Uniform draws of training images by class."""

from torch import Tensor, nn


class ClassDraws(nn.Module):
    """Draws among the training images of an image's class, or among those of all other classes.

    The images are sorted by class once. A draw among the others is a rank in that order that skips
    the block of the image's class: exact, and without rejection.

    Args:
        labels: class of each training image, (N,), any integers.
    """

    classes: Tensor
    order: Tensor
    start: Tensor
    count: Tensor

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        _, classes, count = labels.unique(return_inverse=True, return_counts=True)
        buffers = {
            "classes": classes,
            "order": classes.argsort(stable=True),
            "start": count.cumsum(0) - count,
            "count": count,
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)  # known from the data set

    def same(self, index: Tensor, bits: Tensor) -> Tensor:
        """Random bits and images `index`, which broadcast -> images of the same classes."""
        label = self.classes[index]
        return self.order[self.start[label] + bits % self.count[label]]

    def other(self, index: Tensor, bits: Tensor) -> Tensor:
        """Random bits and images `index`, which broadcast -> images of any other classes."""
        label = self.classes[index]
        start, count = self.start[label], self.count[label]
        rank = bits % (len(self.order) - count)
        return self.order[rank + count * (rank >= start)]
