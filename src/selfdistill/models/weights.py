"""Weights from files: read as tensors and nothing else, and fitted to a network."""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
from safetensors import safe_open
from torch import Tensor, nn

from ..core import ArtifactError, ConfigError, ResourceError, load_tensors
from . import convert_weights
from .fit_weights import fit_weights, rename_tensors
from .renormalize import TrainedInput

PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".tar")
SUFFIXES = (".safetensors", *PICKLED)
SUFFIX_LIST = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
"""Endings of files of weights, as a sentence lists them."""
_INPUT = ("mean", "std", "preparation")
"""Keys of a header that say what images a network was trained on."""
_SECONDS = 600  # for a converting process that neither ends nor uses its processor time


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill a network with the weights of a file; what it left out is said in a warning.

    A file may hold the state dict itself or among other entries (`state_dict`, `model`,
    `model_state_dict`, `model_ema`, …); a warning says which of several was read. A prefix before
    the names (`module.`, `_orig_mod.`, `model.`, any other) is dropped where that makes them fit. A
    head for other classes starts anew.
    Nothing but tensors is ever read: a file that carries code is refused and its code is not run.

    Args:
        network: filled in place.
        path: a `.safetensors` file, or one of torch's (`.pt`, `.pth`, `.ckpt`, `.bin`, `.tar`).

    Raises:
        ConfigError: there is no such file.
        ArtifactError: it is corrupt, holds something else, or does not fit.
        ResourceError: it cannot be read.
    """
    set_weights(network, read_weights(path), f"weights '{path}'")


def set_weights(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Fill a network with tensors by name, as `load_weights` does.

    Args:
        network: filled in place.
        state: tensors by name.
        source: what they are, for sentences.

    Raises:
        ArtifactError: they do not fit.
    """
    fit = fit_weights(state, network, source)
    load_tensors(network, fit.tensors, strict=False)  # strictness is in the fit
    if fit.remark:
        warnings.warn(f"{source}: {fit.remark}", stacklevel=2)


def count_classes(state: Mapping[str, Tensor], make: Callable[[int], nn.Module]) -> int | None:
    """Number of classes of the network whose weights these are; None where they do not tell.

    Args:
        state: tensors by name.
        make: the network for a number of classes.
    """
    return _matching_size(state, make(2).state_dict(), make(3).state_dict(), (2, 3))


def count_channels(state: Mapping[str, Tensor], make: Callable[[int], nn.Module]) -> int | None:
    """Channels of the images of the network whose weights these are; None if they do not tell.

    Args:
        state: tensors by name.
        make: the network for a number of channels.
    """
    return _matching_size(state, make(1).state_dict(), make(3).state_dict(), (1, 3))


def _matching_size(
    state: Mapping[str, Tensor],
    smaller: Mapping[str, Tensor],
    larger: Mapping[str, Tensor],
    sizes: tuple[int, int],
) -> int | None:
    """The size of a network with these weights, from its weights at two sizes."""
    state, _ = rename_tensors(state, smaller)
    for name, tensor in smaller.items():
        sides = zip(tensor.shape, larger[name].shape, strict=True)
        growing = [(i, a, b - a) for i, (a, b) in enumerate(sides) if a != b]
        if growing and name in state and state[name].dim() == tensor.dim():
            (dim, size, growth), *_ = growing
            steps = (state[name].shape[dim] - size) * (sizes[1] - sizes[0])
            return int(sizes[0] + steps // growth)
    return None


def file_input(path: str | os.PathLike[str]) -> TrainedInput | None:
    """What the header of an exported .safetensors file says of the images, if it does.

    Raises:
        ArtifactError: it cannot be read.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            header = {
                key: json.loads(text)
                for key, text in (file.metadata() or {}).items()
                if key in _INPUT
            }
        if len(header) < len(_INPUT):
            return None
        mean, std = (tuple(map(float, header[key])) for key in ("mean", "std"))
        _, height, width = map(int, header["preparation"]["shape"])
    except Exception as error:  # a damaged file raises anything
        raise ArtifactError(f"weights '{path}' {_CORRUPT}") from error
    return TrainedInput(mean, std, (height, width))


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors by name in a file; see `load_weights`."""
    path = Path(path)
    check_weights_file(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return _read_pickled(path)
    except OSError as error:
        raise ResourceError(
            f"weights '{path}' cannot be read: {error.strerror or error}"
        ) from error
    except ArtifactError:
        raise
    except Exception as error:  # a damaged file raises anything
        raise ArtifactError(f"weights '{path}' {_CORRUPT}") from error


_CORRUPT = (
    "are corrupt or hold more than tensors and were not loaded; a .safetensors file holds tensors "
    "only"
)


def check_weights_file(path: Path) -> None:
    """Raises `ConfigError` if a path is no file of weights."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"weights '{path}' are not a {SUFFIX_LIST} file")
    if not path.is_file():
        raise ConfigError(f"there is no weights file '{path}'")


def _read_pickled(path: Path) -> dict[str, Tensor]:
    """A pickled file, converted by a process with limits on memory, time and network."""
    with path.open("rb"), tempfile.TemporaryDirectory() as folder:  # unreadable: OSError
        target = Path(folder) / "weights.safetensors"
        status, message = _convert(path, target)
        if status:
            raise ArtifactError(f"weights '{path}' {message or _CORRUPT}")
        with safe_open(target, "pt") as file:
            about = file.metadata()
            if about["remark"]:
                warnings.warn(f"weights '{path}': {about['remark']}", stacklevel=3)
            return {name: file.get_tensor(name) for name in json.loads(about["order"])}


def _convert(source: Path, target: Path) -> tuple[int, str]:
    """Exit status of the converter, and why it refused the file, or ""."""
    program = [sys.executable, "-I", convert_weights.__file__, str(source), str(target)]
    try:
        done = subprocess.run(program, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return 1, "take too long to read"
    refused = done.returncode == convert_weights.REFUSED
    return done.returncode, done.stdout.decode() if refused else ""
