"""Classes of images, clips, pixels, boxes and nodes, and embeddings: heads, losses, metrics."""

from collections.abc import Sequence

import torch
from torch import nn

from ..core import ConfigError, Task
from ..taps import check_uncompiled, example_output, training_output
from .classification import Classification
from .clips import Clips
from .detection import Detection
from .embedding import Embedding
from .nodes import Nodes
from .segmentation import Segmentation

TASKS = {cls.name: cls for cls in (Classification, Clips, Detection, Embedding, Segmentation)}
"""Task classes by name."""

LOOP_TASKS = {cls.name: cls for cls in (Nodes,)}
"""Those whose data come from a training loop of the user's own, so that commands lack them."""

__all__ = [
    "LOOP_TASKS",
    "TASKS",
    "Classification",
    "Clips",
    "Detection",
    "Embedding",
    "Nodes",
    "Segmentation",
    "check_network",
    "make_task",
    "task_family",
]


def task_family(name: str) -> str:
    """The task of this package whose labels have the same form; a task of a user's own has one."""
    task = TASKS[name]
    if task.image_labels:
        return "classification"
    if task.embeddings:
        return "embedding"
    return "segmentation" if task.dense_scores else "detection"


def make_task(
    name: str, classes: Sequence[str], shape: Sequence[int], *, label_smoothing: float = 0.0
) -> Task:
    """A task for a data set.

    Args:
        name: a key of `TASKS`.
        classes: names of the classes, in the order of their labels.
        shape: (C, H, W) of the images, or (C, T, H, W) of the clips.
        label_smoothing: of the supervised loss, in [0, 1).
    """
    return TASKS[name](classes, torch.zeros(2, *shape), label_smoothing=label_smoothing)


def check_network(network: nn.Module, task: Task, *, foreign: bool = False) -> None:
    """Run the network once; one that is not of this package in training mode, too.

    Raises:
        ConfigError: the network cannot take the task's images, or its output is not of the task's
            form.
    """
    check_uncompiled(network)
    output = example_output(network, task.example)
    task.check_output(network, output)
    if foreign and task.class_scores:
        trained = training_output(network, task.example)
        if type(trained) is not type(output):
            name = type(network).__name__
            raise ConfigError(
                f"{name} gives {type(trained).__name__} while it trains and "
                f"{type(output).__name__} otherwise; build it without auxiliary outputs "
                "(torchvision: aux_logits=False), or wrap it in a module that returns the scores "
                "alone"
            )
