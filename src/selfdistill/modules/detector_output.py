"""What every detector's outputs can do, whatever they look like inside."""

from typing import NamedTuple, Protocol, Self, runtime_checkable

from torch import Tensor


class Detections(NamedTuple):
    """What is seen in one image, surest first.

    Attributes:
        boxes: (D, 4) float32: x1, y1, x2, y2 in pixels.
        scores: (D,) in 0 … 1.
        labels: (D,) int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@runtime_checkable
class DetectorOutput(Protocol):
    """Raw outputs of a detector for a batch: the loss and the boxes are made of them later.

    Detectors differ in anchors, levels and losses, so each network's own class of outputs knows how
    to read them, and the task need not. Sizes are the images' (H, W) in pixels; targets are (B, M,
    5) float32 with class, x1, y1, x2, y2 in pixels, rows of class −1 holding no box.
    """

    def loss(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The detector's own loss, a 0-d tensor."""
        ...

    def soft_loss(self, reference: Self, temperature: float) -> Tensor:
        """Distillation towards the outputs of another network of the same form, a 0-d tensor."""
        ...

    def compatible_with(self, other: object) -> bool:
        """Whether the other outputs have this form: the same class, places and anchors."""
        ...

    def detections(self, size: tuple[int, int]) -> list[Detections]:
        """What is seen in each image, after suppression of boxes that say the same."""
        ...

    def detach(self) -> Self:
        """The same without gradients."""
        ...
