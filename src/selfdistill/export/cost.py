"""What a network costs: parameters and multiply-adds."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..taps import probing


class Cost(NamedTuple):
    """Of one image.

    Attributes:
        parameters: those that the output depends on (BatchNorm's statistics are none).
        macs: multiply-adds of convolutions, matrix products and attention.
    """

    parameters: int
    macs: int


def cost(network: nn.Module, example: Tensor) -> Cost:
    """Count what really runs: an early exit pays for the layers before it and for its head.

    Args:
        network: any network or early exit.
        example: an input, (B, C, H, W); one image of it is counted.
    """
    device = next((p.device for p in network.parameters()), example.device)
    image = example[:1].to(device)
    with probing(network), FlopCounterMode(display=False) as counter:
        network(image)
    return Cost(_used_parameters(network, image), counter.get_total_flops() // 2)


def _used_parameters(network: nn.Module, image: Tensor) -> int:
    """Elements of all parameters that the output's gradient reaches."""
    parameters = list(network.parameters())
    asked = [p.requires_grad for p in parameters]
    modes = {module: module.training for module in network.modules()}
    network.eval().requires_grad_(True)
    try:
        with torch.enable_grad():
            out = network(image)
            total = torch.stack([t.float().sum() for t in _tensors(out)]).sum()
            grads = torch.autograd.grad(total, parameters, allow_unused=True)
    finally:
        for parameter, value in zip(parameters, asked, strict=True):
            parameter.requires_grad_(value)
        for module, mode in modes.items():
            module.training = mode
    return sum(p.numel() for p, g in zip(parameters, grads, strict=True) if g is not None)


def _tensors(out: object) -> list[Tensor]:
    if isinstance(out, Tensor):
        return [out]
    parts = out.values() if isinstance(out, dict) else out
    return [t for part in parts for t in _tensors(part)]  # type: ignore[attr-defined]
