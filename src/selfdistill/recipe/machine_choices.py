"""What a recipe leaves to the machine: the device, the precision and the memory format."""

from typing import Any

import torch
from torch import nn

from ..core import Method
from ..core.machine import has_fast_bfloat16
from ..errors import ConfigError
from .cpu_bfloat16 import wrong_gradients
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
    precision, whose tensor cores want them so. On the CPU bf16 is not taken where it computes
    wrong gradients, see `wrong_gradients`.
    """
    precision, layout = precision_of(recipe), recipe.channels_last
    if recipe.precision == "auto" and precision == "bf16" and device_type(recipe) == "cpu":
        precision = "fp32" if wrong_gradients(method, example) else precision
    if layout is None:
        convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
        fast = device_type(recipe) == "cpu" or precision != "fp32"
        layout = convolutions >= _CONVOLUTIONS and fast
    return recipe.model_copy(update={"precision": precision, "channels_last": layout})


def check_precision(recipe: Recipe, method: Method, example: Any) -> None:
    """Refuse to train in what a recipe asks for where that computes wrong gradients.

    A run that was trained so elsewhere can be loaded, evaluated and exported nevertheless.

    Raises:
        ConfigError: the recipe asks for bf16 on a CPU, which is not for its networks.
    """
    if recipe.precision != "bf16" or device_type(recipe) != "cpu":
        return
    if where := wrong_gradients(method, example):
        raise ConfigError(
            f"bf16 on a CPU computes wrong gradients {where}; train with --precision fp32, which a "
            "run that has begun in bf16 cannot change to"
        )
