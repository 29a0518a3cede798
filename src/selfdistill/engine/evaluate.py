"""How good every predictor of a method is."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from ..core import Batch, Method, Task


def accuracy_of(
    fabric: Fabric, network: nn.Module, task: Task, batches: Iterable[Batch]
) -> dict[str, float]:
    """{metric: value} of a network by itself, over the batches of all processes."""
    metric = task.metric().to(fabric.device)
    network.to(fabric.device).eval()
    with torch.inference_mode(), fabric.autocast():
        for batch in batches:
            metric.update(network(batch.inputs), batch.targets)
    return {name: float(value) for name, value in metric.compute().items()}


def evaluate(
    fabric: Fabric,
    method: Method,
    task: Task,
    batches: Iterable[Batch],
    details: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, float]]:
    """{predictor: {metric: value}} over this process's batches, gathered over all processes.

    `details` are further metrics that are fed the student's outputs, for the caller to compute.
    The method is put into evaluation mode for it and back into what it was.
    """
    modes = {module: module.training for module in method.modules()}
    method.eval()
    metrics = {name: task.metric().to(fabric.device) for name in method.predictors()}
    try:
        with torch.inference_mode(), fabric.autocast():
            for batch in batches:
                for name, out in method.predict(batch.inputs).items():
                    metrics[name].update(out, batch.targets)
                    if name == "student":
                        for metric in (details or {}).values():
                            metric.update(out, batch.targets)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return {
        name: {key: float(value) for key, value in metric.compute().items()}
        for name, metric in metrics.items()
    }
