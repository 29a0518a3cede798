"""The interface between methods and the form of labels: a class, a mask or boxes."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

IGNORE = 255
"""Label of void pixels, which have no class."""


class Task(ABC):
    """Heads, losses and metrics for one form of labels, so that methods serve every task.

    Attributes:
        classes: their names, in the order of their labels.
        example: two inputs of the network, (2, C, H, W) or (2, C, T, H, W), or a graph, by which
            shapes are found.
        primary_metric: name of the metric by which networks are compared.
        name: of the task, for users.
        image_labels: whether targets are one class label per image, (B,) int64, and outputs (B, K).
        class_scores: whether outputs are class scores along dim 1, (B, K, ...), and targets a
            tensor.
        dense_scores: whether outputs are class scores of pixels, (B, K, H, W).
        embeddings: whether outputs are embeddings (B, D), and targets those that a teacher gives.
        graphs: whether an input is a graph and its samples are the nodes, not images.
        clips: whether an input is a clip, (C, T, H, W), not an image.
        output_names: of the tensors that an exported network gives.
    """

    example: Any
    classes: list[str]
    primary_metric: str
    name: ClassVar[str]
    image_labels: ClassVar[bool] = False
    class_scores: ClassVar[bool] = False
    dense_scores: ClassVar[bool] = False
    embeddings: ClassVar[bool] = False
    graphs: ClassVar[bool] = False
    clips: ClassVar[bool] = False
    output_names: ClassVar[tuple[str, ...]] = ("logits",)

    @abstractmethod
    def head(self, channels: int) -> nn.Module:
        """A prediction head: feature (B, channels, h, w) to outputs."""

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

    def num_samples(self, inputs: Any) -> int:
        """Number of samples in a batch's inputs, each of which has a target."""
        return len(inputs)

    def check_targets(self, targets: Any, batch_size: int, *, values: bool = True) -> None:
        """Raise `ConfigError` if targets are not those of so many inputs of this task.

        Args:
            targets: as they are given to `loss`.
            batch_size: number of samples.
            values: whether to look at the numbers, for which the host waits for the device.
        """
        return

    def valid_mask(self, targets: Any) -> Tensor | None:
        """Bool mask of the positions that have a label, or None where all have one.

        For segmentation (B, H, W). Void pixels carry no supervision, so a soft loss that is given
        this mask leaves them out, too.
        """
        return None

    @abstractmethod
    def metric(self) -> Any:
        """A new `torchmetrics.MetricCollection` over (outputs, targets), fractions in 0 … 1."""

    def hard_targets(self, targets: Any) -> Any:
        """Targets as the metrics take them: of mixtures of labels the largest part."""
        return targets

    def train_metric(self) -> Any:
        """The metrics that are cheap enough for training batches."""
        return self.metric()

    def outputs_compatible(self, outputs: Any, reference: Any) -> bool:
        """Whether `soft_loss` is defined for these two; where not, methods leave it out."""
        return True

    def same_class_mask(self, targets: Any) -> Tensor | None:
        """(B, B) bool: pairs of samples with the same label; None without image labels."""
        return None

    def matrix_metrics(self) -> dict[str, Any]:
        """Further metrics of the student after training, {name: metric that computes a matrix}."""
        return {}

    def per_class_metric(self) -> Any:
        """A new metric of one predictor that computes {column: (K,)}, or None.

        Columns are fractions in 0 … 1 or counts; nan where a class has no samples.
        """
        return None

    def visualize(self, images: Tensor, targets: Any, outputs: Any) -> list[Tensor]:
        """Target and prediction drawn into each image; an empty list if the task has no drawing.

        Args:
            images: (B, 3, H, W) uint8, not normalized.
            targets, outputs: of these images.

        Returns:
            (3, height, width) uint8 each: the target on the left, the prediction on the right.
        """
        return []

    def inference_module(self, network: nn.Module) -> nn.Module:
        """The network with the postprocessing of inference, in tensors."""
        return network

    def calibration_metric(self) -> Any:
        """A new metric of one predictor that computes a reliability table, or None.

        The table is (bins, 3), over equal bins of confidence: number of predictions, their mean
        confidence, and their accuracy; the latter two are nan in an empty bin.
        """
        return None

    def correct_mask(self, outputs: Any, targets: Any) -> Tensor | None:
        """(B,) bool: correctly predicted samples; None if that is not binary."""
        return None

    def confidence(self, outputs: Any) -> tuple[Tensor, Tensor] | None:
        """Probability and label of each predicted class, (B,); None without image labels."""
        return None

    @abstractmethod
    def check_output(self, network: nn.Module, output: Any) -> None:
        """Raises `ConfigError` if a network's output for `example` is not of this task's form."""
