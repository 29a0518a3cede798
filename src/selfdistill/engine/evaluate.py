"""Evaluation of every predictor of a method."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..core import Batch, Method, Task
from ..core.training_modes import restored_modes
from .processes import gather_rows


def evaluate_network(
    fabric: Fabric, network: nn.Module, task: Task, batches: Iterable[Batch]
) -> dict[str, float]:
    """{metric: value} of a bare network, over the batches of all processes."""
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
    extra_metrics: Mapping[str, Iterable[Any]] | None = None,
) -> dict[str, dict[str, float]]:
    """{predictor: {metric: value}} over this process's batches, gathered over all processes.

    `extra_metrics` of a predictor are updated along with it, for the caller to compute. The method
    is in evaluation mode meanwhile; its modes are restored afterwards. Outputs that hold NaN
    are scored as they are, and warned of.
    """
    metrics = {name: task.metric().to(fabric.device) for name in method.predictors()}
    valid = {name: torch.ones((), device=fabric.device) for name in metrics}
    with evaluation_context(method, fabric):
        for batch in batches:
            for name, outputs in method.predict(batch.inputs).items():
                for tensor in _tensors(outputs):
                    valid[name] *= ~tensor.isnan().any()
                for metric in (metrics[name], *(extra_metrics or {}).get(name, ())):
                    metric.update(outputs, batch.targets)
    _warn_of_nan(fabric, valid)
    return {
        name: {key: float(value) for key, value in metric.compute().items()}
        for name, metric in metrics.items()
    }


def _tensors(outputs: Any) -> Iterator[Tensor]:
    """The floating-point tensors of a network's outputs: a tensor, a tuple, or an object's."""
    parts = outputs if isinstance(outputs, list | tuple) else [outputs]
    parts = [*parts, *getattr(outputs, "__dict__", {}).values()]
    for part in parts:
        if isinstance(part, Tensor) and part.is_floating_point():
            yield part
        elif isinstance(part, list | tuple):
            yield from _tensors(part)


def _warn_of_nan(fabric: Fabric, valid: Mapping[str, Tensor]) -> None:
    """Name the predictors that gave NaN in any process: such scores mean nothing."""
    stacked = torch.stack(list(valid.values()))
    flags = cast(Tensor, fabric.all_reduce(stacked, reduce_op="mean"))
    names = [name for name, flag in zip(valid, flags.tolist(), strict=True) if flag < 1]
    if names:
        warnings.warn(
            f"outputs of {', '.join(names)} hold NaN on some of the held-out images, so their "
            "scores mean nothing; train anew with a lower --lr, or in fp32",
            stacklevel=3,
        )


def predictor_outputs(fabric: Fabric, method: Method, name: str, inputs: Tensor) -> Any:
    """Outputs of one predictor in evaluation mode; the method's modes are restored afterwards."""
    with evaluation_context(method, fabric):
        return method.predictors()[name](inputs.to(fabric.device))


@contextmanager
def evaluation_context(method: Method, fabric: Fabric) -> Iterator[None]:
    """Context of evaluation mode, without gradients, in the run's precision."""
    with restored_modes(method), torch.inference_mode(), fabric.autocast():
        method.eval()
        yield


class EvaluationResult(NamedTuple):
    """Metrics of a method on a set of images.

    Attributes:
        scores: {predictor: {metric: value}}.
        calibration: {predictor: (bins, 3)}, see `Task.calibration_metric`; empty where a task has
            none.
        matrices: {name: matrix} of the student, see `Task.matrix_metrics`.
        per_class: {column: (K,)} of the student, see `Task.per_class_metric`; empty where a task
            has none.
        correct: {predictor: (N,) bool}, samples of all processes in order, see
            `Task.correct_mask`; empty where a task has none.
        confidence: (N,) of the student, see `Task.confidence`; empty where a task has none.
        predicted: (N,) labels of the student.
    """

    scores: dict[str, dict[str, float]]
    calibration: dict[str, Tensor]
    matrices: dict[str, Tensor]
    per_class: dict[str, Tensor]
    correct: dict[str, Tensor]
    confidence: Tensor
    predicted: Tensor


def evaluate_full(
    fabric: Fabric, method: Method, task: Task, batches: Iterable[Batch]
) -> EvaluationResult:
    """Evaluate with all metrics of the task; `evaluate` computes the scores alone."""
    names = list(method.predictors())
    matrices = {name: metric.to(fabric.device) for name, metric in task.matrix_metrics().items()}
    calibration = {
        name: m.to(fabric.device) for name in names if (m := task.calibration_metric()) is not None
    }
    masks = {name: _CorrectMask(task) for name in names}
    extra = {name: [masks[name], *([calibration[name]] if calibration else [])] for name in names}
    per_class = [m.to(fabric.device) for m in [task.per_class_metric()] if m is not None]
    answers = _Answers(task)
    extra["student"] += [*matrices.values(), *per_class, answers]
    scores = evaluate(fabric, method, task, batches, extra)
    # torchmetrics makes a number of what has one element only, such as the scores of one class.
    return EvaluationResult(
        scores,
        {name: torch.atleast_2d(m.compute()).cpu() for name, m in calibration.items()},
        {name: torch.atleast_2d(m.compute()).cpu() for name, m in matrices.items()},
        {n: torch.atleast_1d(column).cpu() for m in per_class for n, column in m.compute().items()},
        {name: rows for name, mask in masks.items() if len(rows := mask.gather(fabric))},
        *answers.gather(fabric),
    )


class _CorrectMask:
    """Which samples a predictor answers correctly, in order."""

    def __init__(self, task: Task) -> None:
        self.task, self.batches = task, list[Tensor]()

    def update(self, outputs: Any, targets: Any) -> None:
        """Append the mask of a batch."""
        if (mask := self.task.correct_mask(outputs, targets)) is not None:
            self.batches.append(mask.cpu())

    def gather(self, fabric: Fabric) -> Tensor:
        """The mask of all processes' samples, (N,) bool."""
        return gather_rows(fabric, torch.cat([torch.zeros(0, dtype=torch.bool), *self.batches]))


class _Answers:
    """What a classifier answers and how sure it is, in order."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.confidence, self.predicted = list[Tensor](), list[Tensor]()

    def update(self, outputs: Any, targets: Any) -> None:
        """Append a batch."""
        if (answer := self.task.confidence(outputs)) is not None:
            self.confidence.append(answer[0].cpu())
            self.predicted.append(answer[1].cpu())

    def gather(self, fabric: Fabric) -> tuple[Tensor, Tensor]:
        """Confidence (N,) and labels (N,) int64 of all processes' samples."""
        labels = torch.cat([torch.zeros(0, dtype=torch.int64), *self.predicted])
        confidence = torch.cat([torch.zeros(0), *self.confidence])
        return gather_rows(fabric, confidence), gather_rows(fabric, labels)
