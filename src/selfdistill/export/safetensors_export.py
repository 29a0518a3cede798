"""The weights of a bare network as a safetensors file, for code that has the architecture."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from ..taps.fx_split import copy_without_hooks
from .extract_predictor import load_predictor_state, predictor_state


def write_weights(network: nn.Module, path: Path, *, notes: Mapping[str, str]) -> None:
    """Write a safetensors file.

    Args:
        network: as `bare` gives it.
        path: the file.
        notes: texts by name, kept in the file's header.
    """
    # Shared tensors are written once for each name: a file that can be loaded by any code.
    plain = {name: tensor.contiguous().clone() for name, tensor in predictor_state(network).items()}
    save_file(plain, path, {"format": "pt", **notes})


def with_weights(path: Path, network: nn.Module) -> nn.Module:
    """Another network of this kind, with the file's weights.

    Raises:
        ArtifactError: the file's names or shapes are not the network's.
    """
    other = copy_without_hooks(network)
    for tensor in other.state_dict().values():
        tensor.zero_()
    load_predictor_state(other, load_file(path))
    return other
