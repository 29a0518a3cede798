"""How good every predictor of a method is."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..core import Batch, Method, Task


def evaluate_network(
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
    further: Mapping[str, Iterable[Any]] | None = None,
) -> dict[str, dict[str, float]]:
    """{predictor: {metric: value}} over this process's batches, gathered over all processes.

    `further` are more metrics of some predictors, for the caller to compute. The method is put into
    evaluation mode for it and back into what it was.
    """
    metrics = {name: task.metric().to(fabric.device) for name in method.predictors()}
    with _judged(method, fabric):
        for batch in batches:
            for name, out in method.predict(batch.inputs).items():
                for metric in (metrics[name], *(further or {}).get(name, ())):
                    metric.update(out, batch.targets)
    return {
        name: {key: float(value) for key, value in metric.compute().items()}
        for name, metric in metrics.items()
    }


def student_outputs(fabric: Fabric, method: Method, inputs: Tensor) -> Any:
    """What the student says of some inputs; the method's modes come back as they were."""
    with _judged(method, fabric):
        return method.predictors()["student"](inputs.to(fabric.device))


@contextmanager
def _judged(method: Method, fabric: Fabric) -> Iterator[None]:
    """In evaluation mode, without gradients, in the run's precision."""
    modes = {module: module.training for module in method.modules()}
    method.eval()
    try:
        with torch.inference_mode(), fabric.autocast():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class EvaluationResult(NamedTuple):
    """All that a set of images says of a method.

    Attributes:
        scores: {predictor: {metric: value}}.
        calibration: {predictor: (bins, 3)}, see `Task.calibration_metric`; empty where a task has
            none.
        details: {name: matrix} of the student, see `Task.matrix_metrics`.
        by_class: {column: (K,)} of the student, see `Task.per_class_metric`; empty where a task has
            none.
        correct: {predictor: (N,) bool}, this process's samples in order, see `Task.correct_mask`.
    """

    scores: dict[str, dict[str, float]]
    calibration: dict[str, Tensor]
    details: dict[str, Tensor]
    by_class: dict[str, Tensor]
    correct: dict[str, Tensor]


def evaluate_full(
    fabric: Fabric, method: Method, task: Task, batches: Iterable[Batch]
) -> EvaluationResult:
    """Judge by everything that the task offers; `evaluate` gives the metrics alone."""
    names = list(method.predictors())
    details = {name: metric.to(fabric.device) for name, metric in task.matrix_metrics().items()}
    tables = {
        name: m.to(fabric.device) for name in names if (m := task.calibration_metric()) is not None
    }
    marks = {name: _Marks(task) for name in names}
    further = {name: [marks[name], *([tables[name]] if tables else [])] for name in names}
    by_class = [m.to(fabric.device) for m in [task.per_class_metric()] if m is not None]
    further["student"] += [*details.values(), *by_class]
    scores = evaluate(fabric, method, task, batches, further)
    return EvaluationResult(
        scores,
        {name: table.compute().cpu() for name, table in tables.items()},
        {name: metric.compute().cpu() for name, metric in details.items()},
        {name: column.cpu() for metric in by_class for name, column in metric.compute().items()},
        {name: torch.cat(mark.parts) for name, mark in marks.items() if mark.parts},
    )


class _Marks:
    """Which samples a predictor answers right, in order."""

    def __init__(self, task: Task) -> None:
        self.task, self.parts = task, list[Tensor]()

    def update(self, outputs: Any, targets: Any) -> None:
        """Take in a batch."""
        if (right := self.task.correct_mask(outputs, targets)) is not None:
            self.parts.append(right.cpu())
