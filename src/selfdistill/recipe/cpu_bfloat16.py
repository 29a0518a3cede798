"""Where bf16 on a CPU computes wrong gradients, as seen in torch 2.15 with oneDNN 3.13."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..core import Method
from ..taps import Taps
from ..taps.stage_detection import beside, evaluation_mode, hooked


def wrong_gradients(method: Method, example: Any) -> str:
    """Why bf16 on a CPU is not for a method and its networks; empty if it is.

    For the weights of 3-D convolutions gradients are wrong at many shapes, and memory beside them
    is overwritten. For those of others, what memory held before is left in the gradients of
    weights that meet padding alone, as with a 3×3 kernel and stride 2 on a map of one cell.
    """
    if any(isinstance(m, nn.Conv3d) and m.weight.requires_grad for m in method.modules()):
        return "in 3-D convolutions"
    if _overreaching(method, example):
        return "where kernels reach beyond maps as small as these"
    return ""


def _overreaching(method: Method, example: Any) -> bool:
    """Whether a convolution has weights that meet padding alone.

    Predictors are run on the example; what else is trained is taken to meet the smallest of the
    maps at the taps.
    """
    sides: dict[nn.Module, Sequence[int]] = {}

    def record(module: nn.Module, args: Any, output: Any) -> None:
        sides[module] = min(sides.get(module, args[0].shape[2:]), args[0].shape[2:])

    for network in method.predictors().values():
        layers = [m for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
        with hooked(layers, record), evaluation_mode(network):
            network(beside(network, example))
    taps = [module for module in method.modules() if isinstance(module, Taps)]
    maps = [shape[1:] for each in taps for shape in each.shapes.values() if shape[1:]]
    if maps:
        for module in method.modules():
            if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
                sides.setdefault(module, min(maps)[-2:])
    return any(_meets_padding_alone(module, side) for module, side in sides.items())


def _meets_padding_alone(conv: Any, sides: Sequence[int]) -> bool:
    """Whether some weights of a convolution meet nothing of a map with these sides but padding."""
    if conv.padding_mode != "zeros":  # others repeat pixels
        return False
    before_and_after = conv._reversed_padding_repeated_twice[::-1]  # the last side comes first
    padding = zip(before_and_after[1::2], before_and_after[::2], strict=True)
    geometry = zip(sides, conv.kernel_size, conv.stride, conv.dilation, padding, strict=True)
    return any(_overreaches(*side) for side in geometry)


def _overreaches(
    size: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int]
) -> bool:
    """Whether a row of the kernel lies beyond the map at each of its places, on one side."""
    before, after = padding
    last = size + after - (kernel - 1) * dilation  # behind the last place of the kernel's first row
    return any(
        all(not 0 <= first + k * dilation < size for first in range(-before, last, stride))
        for k in range(kernel)
    )
