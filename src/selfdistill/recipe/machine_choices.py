"""What a recipe leaves to the machine: the device, the precision and the memory format."""

import torch
from torch import nn

from ..core.machine import has_fast_bfloat16
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


def chosen_by_machine(recipe: Recipe, network: nn.Module) -> Recipe:
    """The recipe with precision and memory format decided, which a resumed run goes on with.

    Channels come last where the network convolves images: on the CPU always, and on a GPU in half
    precision, whose tensor cores want them so.
    """
    precision, layout = precision_of(recipe), recipe.channels_last
    if layout is None:
        convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
        fast = device_type(recipe) == "cpu" or precision != "fp32"
        layout = convolutions >= _CONVOLUTIONS and fast
    return recipe.model_copy(update={"precision": precision, "channels_last": layout})
