"""A method's trained tensors: split for a checkpoint, restored from it, swapped for their EMA."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from ..core import ArtifactError, Method, load_tensors, trained_state
from .checkpoint import Checkpoint
from .optimizer import EMA


@contextmanager
def ema_weights(method: Method, ema: EMA | None) -> Iterator[None]:
    """Context in which the method has its averaged weights; without an EMA nothing changes."""
    if ema is None:
        yield
        return
    live = {name: tensor.clone() for name, tensor in trained_state(method).items()}
    load_tensors(method, ema.state, strict=False)
    try:
        yield
    finally:
        load_tensors(method, live, strict=False)


def student_prefix(method: Method) -> str | None:
    """The student's key prefix in the method, "student.network.", or None if it is no submodule."""
    student = method.predictors()["student"]
    return next((f"{n}." for n, m in method.named_modules() if m is student), None)


def split_student(method: Method, state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The state as {"model": the student's, under its own keys, "method": all other tensors}."""
    prefix = student_prefix(method)
    if prefix is None:
        return {"model": method.predictors()["student"].state_dict(), "method": state}
    model = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return {"model": model, "method": {k: v for k, v in state.items() if not k.startswith(prefix)}}


def restore_method(method: Method, checkpoint: Checkpoint, *, ema: bool = False) -> None:
    """Load a checkpoint's trained tensors; with `ema` their moving average, where it has one."""
    if ema and "ema" in checkpoint.tensors:
        state = checkpoint.tensors["ema"]
    else:
        prefix = student_prefix(method)
        state = dict(checkpoint.tensors["method"])
        if prefix is not None:
            state |= {prefix + name: value for name, value in checkpoint.tensors["model"].items()}
    missing = trained_state(method).keys() - state.keys()
    unknown = state.keys() - trained_state(method).keys()
    if missing or unknown:
        name = sorted(missing | unknown)[0]
        raise ArtifactError(
            f"the checkpoint does not fit this method and network (first difference: {name})"
        )
    load_tensors(method, state, strict=False)
