"""The interface of all detectors' outputs."""

from typing import NamedTuple, Protocol, Self, runtime_checkable

from torch import Tensor


class Detections(NamedTuple):
    """The detections in one image, in descending order of score.

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
    """Raw outputs of a detector for a batch, with their loss and their decoding.

    Detectors differ in anchors, levels and losses, so the class of outputs implements both, and the
    task need not know them. Sizes are the images' (H, W) in pixels; targets are (B, M,
    5) float32 with class, x1, y1, x2, y2 in pixels, padded with rows of class −1.
    """

    def loss(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The detector's own loss, a 0-d tensor."""
        ...

    def soft_loss(self, reference: Self, temperature: float) -> Tensor:
        """Distillation towards the outputs of another network of the same form, a 0-d tensor."""
        ...

    def compatible_with(self, other: object) -> bool:
        """Whether the other outputs have this form: the same class, positions and anchors."""
        ...

    def detections(self, size: tuple[int, int]) -> list[Detections]:
        """Detections in each image, after non-maximum suppression."""
        ...

    def detach(self) -> Self:
        """The same without gradients."""
        ...
