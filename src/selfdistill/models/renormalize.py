"""A network's own normalization, for images that come with another one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

Normalization = tuple[Sequence[float], Sequence[float]]


def renormalize_inputs(network: nn.Module, given: Normalization, own: Normalization) -> None:
    """Make a network take images of another normalization than its own, (mean, std) of channels.

    A hook brings the images to its own one. Names of modules and the state dict stay as they are.
    """
    (mean, std), (own_mean, own_std) = (map(torch.tensor, pair) for pair in (given, own))
    if torch.equal(mean, own_mean) and torch.equal(std, own_std):
        return
    scale, offset = std / own_std, (mean - own_mean) / own_std
    for name, values in (("input_scale", scale), ("input_offset", offset)):
        network.register_buffer(name, values[:, None, None], persistent=False)
    network.register_forward_pre_hook(_renormalized)


def _renormalized(network: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *others = args
    return (images * network.input_scale + network.input_offset, *others)
