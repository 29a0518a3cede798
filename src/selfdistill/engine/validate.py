"""Scores on the validation images while a run is trained."""

from collections.abc import Iterable
from typing import Any

from lightning_fabric import Fabric

from ..core import Batch, Method, Task
from .evaluate import evaluate
from .optimizer import EMA
from .state import ema_weights


def validate(
    fabric: Fabric, method: Method, task: Task, batches: Iterable[Batch], ema: EMA | None
) -> dict[str, Any]:
    """Entries of the log: "val", the scores of what is deployed.

    With a moving average that is the average, and "val_without_ema" has the scores of the weights
    themselves.
    """
    live = {} if ema is None else {"val_without_ema": evaluate(fabric, method, task, batches)}
    with ema_weights(method, ema):
        return {"val": evaluate(fabric, method, task, batches), **live}
