"""A method's trained tensors: split for a checkpoint, restored from it, swapped for their EMA."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ..core import ArtifactError, Method, load_tensors, trained_state
from .checkpoint import Checkpoint
from .optimizer import EMA
from .optimizer_state import optimizer_tensors


@contextmanager
def ema_weights(method: Method, ema: EMA | None) -> Iterator[None]:
    """Context in which the method has its averaged weights; without an EMA nothing changes."""
    if ema is None:
        yield
        return
    live = {n: tensor.clone() for n, tensor in trained_state(method).items() if n in ema.state}
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


def checkpoint_tensors(
    method: Method, optimizer: Optimizer, ema: EMA | None
) -> dict[str, dict[str, Tensor]]:
    """All groups of tensors of a checkpoint."""
    tensors = split_student(method, trained_state(method))
    tensors["optimizer"] = optimizer_tensors(optimizer, method)
    return tensors | ({"ema": ema.state} if ema else {})


def tensor_group(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    """A group of a checkpoint's tensors.

    Raises:
        ArtifactError: it has no such group.
    """
    if name not in checkpoint.tensors:
        raise ArtifactError(
            f"the checkpoint of step {checkpoint.state['step']} has no {name}.safetensors, which "
            "this run needs; it is of another run"
        )
    return checkpoint.tensors[name]


def require_same_tensors(expected: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Raise `ArtifactError` unless the names and shapes of two sets of tensors are the same."""
    names = sorted(expected.keys() ^ saved.keys())
    shaped = (n for n, tensor in expected.items() if n in saved and tensor.shape != saved[n].shape)
    if difference := next(iter(names), None) or next(shaped, None):
        raise ArtifactError(
            f"the checkpoint does not fit this method and network (first difference: {difference})"
        )


def restore_method(method: Method, checkpoint: Checkpoint, *, ema: bool = False) -> None:
    """Load a checkpoint's trained tensors; with `ema` their moving average, where it has one.

    Raises:
        ArtifactError: they are those of another method or network.
    """
    prefix = student_prefix(method)
    state = dict(tensor_group(checkpoint, "method"))
    if prefix is not None:
        model = tensor_group(checkpoint, "model")
        state |= {prefix + name: value for name, value in model.items()}
    if ema:
        state |= checkpoint.tensors.get("ema", {})
    require_same_tensors(trained_state(method), state)
    load_tensors(method, state, strict=False)


def restore_ema(ema: EMA, method: Method, checkpoint: Checkpoint) -> None:
    """Load the moving average of a checkpoint; earlier ones average memories of images, too.

    Raises:
        ArtifactError: it has none, or that of another network.
    """
    memories = trained_state(method).keys() - ema.state.keys()
    saved = {n: t for n, t in tensor_group(checkpoint, "ema").items() if n not in memories}
    require_same_tensors(ema.state, saved)
    ema.state = {name: saved[name].to(tensor) for name, tensor in ema.state.items()}


def restore_scaler(precision: Any, checkpoint: Checkpoint) -> None:
    """Load the state of a precision's gradient scaler.

    Raises:
        ArtifactError: it is that of another precision.
    """
    try:
        precision.load_state_dict(checkpoint.state["scaler"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ArtifactError(f"the checkpoint's gradient scaler cannot be read: {error}") from None
