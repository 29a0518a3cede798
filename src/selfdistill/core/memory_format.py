"""Tensors with the channels as the innermost dimension in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last(x: Tensor) -> Tensor:
    """Images, clips and weights of convolutions with their channels last, others as they are."""
    layout = _FORMATS.get(x.dim())
    return x if layout is None else x.contiguous(memory_format=layout)


def module_to_channels_last(module: nn.Module) -> None:
    """All parameters and buffers of a module as `channels_last` has them, in place.

    `Module.to(memory_format=torch.channels_last)` refuses the weights of 3-D convolutions. Weights
    that are split among processes stay as they are.
    """
    for tensor in _whole_tensors(module):
        tensor.data = channels_last(tensor.data)


def module_to_contiguous(module: nn.Module) -> None:
    """All parameters and buffers of a module in the usual order, in place.

    safetensors, for one, writes no others.
    """
    for tensor in _whole_tensors(module):
        tensor.data = tensor.data.contiguous()


def _whole_tensors(module: nn.Module) -> Iterator[Tensor]:
    for tensor in (*module.parameters(), *module.buffers()):
        if not hasattr(tensor, "to_local"):  # a DTensor, whose class is slow to import
            yield tensor
