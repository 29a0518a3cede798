"""Parameters and multiply-adds of a network, counted in a real forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..core.training_modes import restored_modes
from ..modules.detector_output import DetectorOutput


class NetworkCost(NamedTuple):
    """Cost of one image.

    Attributes:
        parameters: number of those that the output depends on; BatchNorm's statistics are none.
        macs: multiply-adds of convolutions, matrix products and attention.
    """

    parameters: int
    macs: int


def network_cost(network: nn.Module, example: Tensor) -> NetworkCost:
    """Cost of what really runs: of an early exit, the layers before it and its head.

    A detector's boxes are decoded, since its later stages may run only then.

    Args:
        network: any network or early exit.
        example: an input, (B, C, H, W), of which one image is counted.
    """
    parameters = list(network.parameters())
    image = example[:1].to(parameters[0].device if parameters else example.device)
    with _differentiable(network), FlopCounterMode(display=False) as counter:
        # With gradients on, torch's attention takes no fused path, whose products are not counted.
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
    """Context of evaluation mode with gradients for all parameters, restored afterwards."""
    requires_grad = {p: p.requires_grad for p in network.parameters()}
    with restored_modes(network), torch.enable_grad():
        network.eval().requires_grad_(True)
        try:
            yield
        finally:
            for parameter, value in requires_grad.items():
                parameter.requires_grad_(value)


def _sum(outputs: Any, size: tuple[int, int], device: torch.device) -> Tensor:
    """A scalar that depends on all outputs; for a detector, its loss for one box."""
    if isinstance(outputs, DetectorOutput):
        height, width = size
        box = [0.0, width / 4, height / 4, 3 * width / 4, 3 * height / 4]
        return outputs.loss(torch.tensor([[box]], device=device), size)
    return torch.stack([tensor.float().sum() for tensor in _tensors(outputs)]).sum()


def _tensors(outputs: object) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return [t for part in parts for t in _tensors(part)]  # type: ignore[attr-defined]
