"""What labels mean: the one place that knows whether a target is a class, a mask or boxes."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

IGNORE = 255
"""The label of a pixel that belongs to no class."""


class Task(ABC):
    """What methods ask about the labels, so that no method needs to know which task it serves.

    Attributes:
        classes: their names, in the order of their labels.
        example: two inputs as the network takes them, (2, C, H, W), to learn shapes from.
        primary_metric: the name among the metrics that says how good a network is.
        name: what users call the task.
        image_labels: whether targets are one class label an image, (B,) int64, and outputs (B, K).
        class_scores: whether outputs are class scores along dim 1, (B, K, ...), and targets a
            tensor.
        dense_scores: whether outputs are scores of every place of the image, (B, K, H, W).
    """

    example: Tensor
    classes: list[str]
    primary_metric: str
    name: ClassVar[str]
    image_labels: ClassVar[bool] = False
    class_scores: ClassVar[bool] = False
    dense_scores: ClassVar[bool] = False

    @abstractmethod
    def head(self, channels: int) -> nn.Module:
        """A prediction head: a feature (B, channels, h, w) to what `loss` takes."""

    @abstractmethod
    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """The supervised loss, a 0-d tensor."""

    @abstractmethod
    def soft_loss(
        self, outputs: Any, reference: Any, temperature: float, *, mask: Tensor | None = None
    ) -> Tensor:
        """Distillation loss towards another head's outputs, a 0-d tensor.

        Args:
            outputs: of the head that learns.
            reference: outputs of the other head; detach them where no gradient may reach it.
            temperature: τ > 0 of both sides.
            mask: `valid_mask` of the targets; None to count everything.
        """

    def valid_mask(self, targets: Any) -> Tensor | None:
        """Bool mask of the positions that have a label, or None where all have one.

        For segmentation (B, H, W). Void pixels carry no supervision, so a soft loss that is given
        this mask leaves them out, too.
        """
        return None

    @abstractmethod
    def metric(self) -> Any:
        """A fresh `torchmetrics.MetricCollection` over (outputs, targets), fractions in 0 … 1."""

    def train_metric(self) -> Any:
        """The same for a batch in training, now and then: what is cheap of `metric`."""
        return self.metric()

    def outputs_compatible(self, outputs: Any, reference: Any) -> bool:
        """Whether `soft_loss` has a meaning for these two; where not, it is left out."""
        return True

    def same_class_mask(self, targets: Any) -> Tensor | None:
        """(B, B) bool: which samples carry the same label; None where labels do not compare."""
        return None

    def matrix_metrics(self) -> dict[str, Any]:
        """Further metrics of the final student, {name: metric that computes a matrix}."""
        return {}

    def per_class_metric(self) -> Any:
        """A fresh metric of one predictor that computes {column: (K,)}, or None.

        Shares are fractions, counts whole numbers; nan stands where there is nothing to judge.
        """
        return None

    def visualize(self, images: Tensor, targets: Any, outputs: Any) -> list[Tensor]:
        """What was asked and what was answered, drawn into each image; none where that says little.

        Args:
            images: (B, 3, H, W) uint8, not normalized.
            targets, outputs: of these images.

        Returns:
            (3, height, width) uint8 each: the truth on the left, the answer on the right.
        """
        return []

    def inference_module(self, network: nn.Module) -> nn.Module:
        """The network as users run it: from its input to what they asked for, in tensors."""
        return network

    def calibration_metric(self) -> Any:
        """A fresh metric of one predictor that computes a reliability table, or None.

        The table is (bins, 3), over equal parts of 0 … 1: how many predictions are so sure, how
        sure in the mean, and the share that is right; the latter two are nan in an empty bin.
        """
        return None

    def correct_mask(self, outputs: Any, targets: Any) -> Tensor | None:
        """(B,) bool: which samples are answered right; None where that is no yes or no."""
        return None

    @abstractmethod
    def check(self, network: nn.Module) -> None:
        """Raises `ConfigError` if the network's outputs are not of this task's form."""
