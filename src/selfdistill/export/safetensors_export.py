"""Export of weights to a safetensors file, for code that has the architecture."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from ..core.files import apply_umask
from ..taps.fx_split import copy_without_hooks
from .extract_predictor import load_predictor_state, predictor_state


def write_weights(network: nn.Module, path: Path, *, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file.

    Args:
        network: as `extract_predictor` returns it.
        path: of the file.
        metadata: texts by name, kept in the file's header.
    """
    # Shared tensors are written once for each name, so that any code can load the file.
    tensors = {name: t.contiguous().clone() for name, t in predictor_state(network).items()}
    save_file(tensors, path, {"format": "pt", **metadata})
    apply_umask(path)  # safetensors lets nobody else read its files


def copy_with_weights(path: Path, network: nn.Module) -> nn.Module:
    """A copy of the network that holds the file's weights alone.

    Raises:
        ArtifactError: the file's names or shapes are not the network's.
    """
    copy = copy_without_hooks(network)
    for tensor in copy.state_dict().values():
        tensor.zero_()
    load_predictor_state(copy, load_file(path))
    return copy
