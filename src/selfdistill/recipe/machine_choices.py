"""What a recipe leaves to the machine: the device, the precision and the memory format."""

import warnings
from typing import Any

import torch
from torch import nn

from ..core import Method
from ..core.machine import has_fast_bfloat16
from ..taps.stage_detection import beside, evaluation_mode, hooked
from .fields import Recipe

UNDECIDED = {"precision": "auto", "channels_last": None}
"""Values that leave a key to the machine; the recipe of a run holds what was chosen."""
_CONVOLUTIONS = 2  # a transformer has one, which cuts the patches


def device_type(recipe: Recipe) -> str:
    """The device that a recipe is trained on."""
    if recipe.device != "auto":
        return recipe.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def precision_of(recipe: Recipe) -> str:
    """The precision that a recipe is trained in."""
    if recipe.precision != "auto":
        return recipe.precision
    return "bf16" if has_fast_bfloat16(device_type(recipe)) else "fp32"


def chosen_by_machine(recipe: Recipe, network: nn.Module, method: Method, example: Any) -> Recipe:
    """The recipe with precision and memory format decided, which a resumed run goes on with.

    Channels come last where the network convolves images: on the CPU always, and on a GPU in half
    precision, whose tensor cores want them so. On the CPU bf16 is not for convolutions that reach
    beyond their maps: oneDNN leaves what memory held before in the gradients of weights that meet
    padding alone (seen in torch 2.15, a 3×3 kernel with stride 2 on a map of one cell).
    """
    precision, layout = precision_of(recipe), recipe.channels_last
    if precision == "bf16" and device_type(recipe) == "cpu" and overreaching(method, example):
        if recipe.precision == "auto":
            precision = "fp32"
        else:
            warnings.warn(
                "the maps of this network are smaller than some of its kernels reach, where bf16 "
                "on a CPU computes wrong gradients; give larger images, or --precision fp32",
                stacklevel=2,
            )
    if layout is None:
        convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
        fast = device_type(recipe) == "cpu" or precision != "fp32"
        layout = convolutions >= _CONVOLUTIONS and fast
    return recipe.model_copy(update={"precision": precision, "channels_last": layout})


def overreaching(method: Method, example: Any) -> bool:
    """Whether a convolution of a predictor has a weight that meets padding alone."""
    unmet: list[bool] = []

    def record(module: Any, args: Any, output: Any) -> None:
        if module.padding_mode == "zeros":  # others repeat pixels
            front = module._reversed_padding_repeated_twice[::2][::-1]  # the last side comes first
            kernels = module.kernel_size, module.stride, front, module.dilation
            sides = args[0].shape[-len(front) :], output.shape[-len(front) :]
            unmet.extend(_pads_alone(*side) for side in zip(*sides, *kernels, strict=True))

    for network in method.predictors().values():
        layers = [m for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
        with hooked(layers, record), evaluation_mode(network):
            network(beside(network, example))
    return any(unmet)


def _pads_alone(
    size: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int
) -> bool:
    """Whether a row of the kernel lies beyond the map at each of its places, on one side."""
    return any(
        all(not 0 <= i * stride - padding + k * dilation < size for i in range(outputs))
        for k in range(kernel)
    )
