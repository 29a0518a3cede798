"""What a network costs: parameters and multiply-adds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..modules.detector_output import DetectorOutput


class NetworkCost(NamedTuple):
    """Of one image.

    Attributes:
        parameters: those that the output depends on (BatchNorm's statistics are none).
        macs: multiply-adds of convolutions, matrix products and attention.
    """

    parameters: int
    macs: int


def network_cost(network: nn.Module, example: Tensor) -> NetworkCost:
    """Count what really runs: an early exit pays for the layers before it and for its head.

    Of a detector that is all the way to its boxes, whose later stages may run only then.

    Args:
        network: any network or early exit.
        example: an input, (B, C, H, W); one image of it is counted.
    """
    parameters = list(network.parameters())
    image = example[:1].to(parameters[0].device if parameters else example.device)
    with _differentiable(network), FlopCounterMode(display=False) as counter:
        # With gradients asked for, torch's attention takes no fused path that hides its products.
        outputs = network(image)
        size = (image.shape[-2], image.shape[-1])
        if isinstance(outputs, DetectorOutput):
            outputs.detections(size)
        macs = counter.get_total_flops() // 2
        total = _sum(outputs, size, image.device)
        grads = torch.autograd.grad(total, parameters, allow_unused=True)
    used = (p.numel() for p, g in zip(parameters, grads, strict=True) if g is not None)
    return NetworkCost(sum(used), macs)


@contextmanager
def _differentiable(network: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients for all parameters; all put back as it was."""
    asked = {p: p.requires_grad for p in network.parameters()}
    modes = {module: module.training for module in network.modules()}
    network.eval().requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter, value in asked.items():
            parameter.requires_grad_(value)
        for module, mode in modes.items():
            module.training = mode


def _sum(outputs: Any, size: tuple[int, int], device: torch.device) -> Tensor:
    """A number that depends on all of an output; of a detector's its loss for one box."""
    if isinstance(outputs, DetectorOutput):
        tall, wide = size
        box = [0.0, wide / 4, tall / 4, 3 * wide / 4, 3 * tall / 4]
        return outputs.loss(torch.tensor([[box]], device=device), size)
    return torch.stack([out.float().sum() for out in _tensors(outputs)]).sum()


def _tensors(out: object) -> list[Tensor]:
    if isinstance(out, Tensor):
        return [out]
    parts = out.values() if isinstance(out, dict) else out
    return [t for part in parts for t in _tensors(part)]  # type: ignore[attr-defined]
