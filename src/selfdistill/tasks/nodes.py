"""Node classification: one class, or several labels, for each node of a graph."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import ConfigError, DataError, Task
from ..functional.divergence import kl_divergence, weighted_mean
from .output_form import require_tensor

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

UNLABELED = -1
"""Label of a node without one; only soft losses learn from it."""
OUTSIDE = -2
"""Label of a node that is there for its neighbors alone; its output counts nowhere."""


class Nodes(Task):
    """Classification of the nodes of graphs.

    Inputs are `torch_geometric.data.Data`, or anything with its `edge_index`, `num_nodes` and
    `to`; outputs are scores (N, K). The example's `y` says what targets are: where it is floating
    point, each node has several labels, (N, K) floats of 0 and 1, and the loss is binary
    cross-entropy; else each node has one class, (N,) int64, and the loss is cross-entropy. −1
    stands for a label that is not known, −2 for one of a node that is there only for others, such
    as the rim of a sampled neighborhood: soft losses count the former and not the latter.

    Args:
        classes: their names, in the order of their labels.
        example: a graph as the network takes it.
        label_smoothing: of the supervised loss, in [0, 1).

    Raises:
        ConfigError: the example is no graph.
        DataError: fewer than two classes that exclude each other, or no label.
    """

    name = "nodes"
    graphs = True

    def __init__(
        self, classes: Sequence[str], example: Any, *, label_smoothing: float = 0.0
    ) -> None:
        edges = getattr(example, "edge_index", None)
        if not isinstance(edges, Tensor) or edges.dim() != 2 or len(edges) != 2:
            raise ConfigError(
                "the example of task 'nodes' is a graph with the edges (2, E) as its edge_index, "
                f"such as torch_geometric.data.Data, not {type(example).__name__} without them"
            )
        labels = getattr(example, "y", None)
        self.multilabel = isinstance(labels, Tensor) and labels.is_floating_point()
        fewest = 1 if self.multilabel else 2
        if len(classes) < fewest:
            raise DataError(f"nodes need {fewest} classes or more; there is {len(classes)}")
        self.primary_metric = "micro_f1" if self.multilabel else "accuracy"
        self.classes, self.example, self.label_smoothing = list(classes), example, label_smoothing

    def num_samples(self, inputs: Any) -> int:
        """The number of nodes."""
        return int(inputs.num_nodes)

    def head(self, channels: int) -> nn.Module:
        """One linear layer."""
        return nn.Sequential(nn.Flatten(), nn.Linear(channels, len(self.classes)))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean (binary) cross-entropy over the labels that are known; 0 without any."""
        known = targets >= 0
        if self.multilabel:
            smoothed = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
            losses = F.binary_cross_entropy_with_logits(
                outputs.float(), torch.where(known, smoothed, 0.0), reduction="none"
            )
            return weighted_mean(losses, known.float())
        summed = F.cross_entropy(
            outputs.float(),
            targets.clamp(min=UNLABELED),
            ignore_index=UNLABELED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return summed / known.sum().clamp(min=1)

    def check_targets(self, targets: Any, batch_size: int, *, values: bool = True) -> None:
        """Labels of all nodes, (N,) or (N, K), −1 where they are not known and −2 outside."""
        k = len(self.classes)
        shape = (batch_size, k) if self.multilabel else (batch_size,)
        kind = "floats of 0 and 1" if self.multilabel else f"int64 of 0 … {k - 1}"
        wanted = (
            f"labels of {batch_size} nodes are {shape}, {kind}, −1 where a label is not known and "
            "−2 at nodes that do not count"
        )
        if not isinstance(targets, Tensor):
            raise ConfigError(f"{wanted}, in a tensor, not {type(targets).__name__}")
        typed = targets.is_floating_point() if self.multilabel else targets.dtype == torch.int64
        if tuple(targets.shape) != shape or not typed:
            form = f"{tuple(targets.shape)}, {str(targets.dtype).removeprefix('torch.')}"
            raise ConfigError(
                f"{wanted}; these are {form} (several labels a node are trained where the "
                "example's y is floating point)"
            )
        if not values or not targets.numel():
            return
        low, high = float(targets.min()), float(targets.max())
        highest = 1 if self.multilabel else k - 1
        if not low >= OUTSIDE or not high <= highest:
            raise ConfigError(f"{wanted}; these go from {low:g} to {high:g}")

    def soft_loss(
        self, outputs: Tensor, reference: Tensor, temperature: float, *, mask: Tensor | None = None
    ) -> Tensor:
        """τ²-scaled KL divergence, of each label by itself where a node has several.

        Averaged over the nodes that count, and over the labels where there are several.
        """
        weight = None if mask is None else mask.float()
        if not self.multilabel:
            return kl_divergence(outputs, reference, temperature, weight)
        each = None if weight is None else weight[:, None].expand_as(outputs)
        return kl_divergence(_pair(outputs), _pair(reference), temperature, each)

    def valid_mask(self, targets: Tensor) -> Tensor:
        """Which nodes count, (N,) bool, labeled or not."""
        counted = targets > OUTSIDE
        return counted.all(1) if self.multilabel else counted

    def metric(self) -> "MetricCollection":
        """Accuracy of the nodes, or micro-averaged F1 where they have several labels."""
        from torchmetrics import MetricCollection

        from .node_metrics import NodeAccuracy, NodeMicroF1

        k = len(self.classes)
        if self.multilabel:
            micro = NodeMicroF1(k, average="micro", ignore_index=UNLABELED)
            return MetricCollection({"micro_f1": micro})
        accuracy = NodeAccuracy(k, average="micro", ignore_index=UNLABELED)
        return MetricCollection({"accuracy": accuracy})

    def check_output(self, network: nn.Module, output: Any) -> None:
        """The network must map a graph of N nodes to (N, K)."""
        expected = (self.num_samples(self.example), len(self.classes))
        require_tensor(network, output)
        if tuple(output.shape) != expected:
            raise ConfigError(
                f"{type(network).__name__} gives {tuple(output.shape)} for a graph of "
                f"{expected[0]} nodes, but {expected[1]} classes ask for {expected}; build it with "
                f"{expected[1]} output channels"
            )


def _pair(scores: Tensor) -> Tensor:
    """(N, K) -> (N, 2, K): a score beside 0, whose softmax is the score's sigmoid."""
    return torch.stack([scores, torch.zeros_like(scores)], 1)
