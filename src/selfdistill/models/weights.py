"""Weights from files."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..core import ArtifactError, ConfigError, ResourceError, load_tensors

SUFFIXES = (".safetensors", ".pt", ".pth")


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill a network with the weights of a file, all of them or none.

    A `.pt` or `.pth` file may hold the state dict itself or hold it under `state_dict` or `model`;
    a `module.` before every name, as data-parallel training leaves it, is dropped. Nothing but
    tensors is ever read from a file: one that carries code is refused and its code is not run.

    Args:
        network: filled in place; names and shapes must fit.
        path: a `.safetensors`, `.pt` or `.pth` file.
    """
    path, expected = Path(path), network.state_dict()
    state = _state_for(expected, path)
    _check_fit(state, expected, f"weights '{path}' do not fit {type(network).__name__}")
    load_tensors(network, state, strict=False)  # strictness is above


def count_classes(path: str | os.PathLike[str], make: Callable[[int], nn.Module]) -> int | None:
    """Number of classes of the network whose weights a file holds; None where they do not tell.

    Args:
        path: a `.safetensors`, `.pt` or `.pth` file.
        make: the network for a number of classes.
    """
    two, three = (make(count).state_dict() for count in (2, 3))
    state = _state_for(two, Path(path))
    for name, tensor in two.items():
        sides = zip(tensor.shape, three[name].shape, strict=True)
        growing = [(i, a, b - a) for i, (a, b) in enumerate(sides) if a != b]
        if growing and name in state and state[name].dim() == tensor.dim():
            (dim, size, growth), *_ = growing
            return int(2 + (state[name].shape[dim] - size) // growth)
    return None


def _state_for(expected: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The state dict of a file, without the prefix of data-parallel training."""
    state = _state(_read(path), path)
    prefixed = state and all(k.startswith("module.") for k in state)
    if prefixed and not state.keys() <= expected.keys():
        return {k.removeprefix("module."): v for k, v in state.items()}
    return state


def _read(path: Path) -> Any:
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"weights '{path}' are not a {', '.join(SUFFIXES)} file")
    if not path.is_file():
        raise ConfigError(f"there is no weights file '{path}'")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ResourceError(
            f"weights '{path}' cannot be read: {error.strerror or error}"
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        raise ArtifactError(
            f"weights '{path}' are corrupt or hold more than tensors and were not loaded; "
            "a .safetensors file holds tensors only"
        ) from error


def _state(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a file held."""
    if isinstance(loaded, Mapping):
        inner = (loaded[k] for k in ("state_dict", "model") if isinstance(loaded.get(k), Mapping))
        loaded = next(inner, loaded)
        if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
            return dict(loaded)
    raise ArtifactError(f"weights '{path}' hold no state dict (tensors by name)")


def _check_fit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], message: str) -> None:
    # files from before batch norm counted its batches lack the count, which nothing here needs
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in expected]
    shapes = [
        f"{k} {tuple(v.shape)} for {tuple(expected[k].shape)}"
        for k, v in state.items()
        if k in expected and v.shape != expected[k].shape
    ]
    defects = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(defects.values()):
        parts = [_summary(names, defect) for defect, names in defects.items() if names]
        raise ArtifactError(f"{message}: {', '.join(parts)}")


def _summary(names: list[str], defect: str) -> str:
    """`5 missing (a, b, c, …)`."""
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} {defect} ({shown})"
