"""Modules of a network whose features can be read, and those that are chosen automatically."""

from dataclasses import dataclass

import torch
from torch import nn

from ..core import ConfigError
from ..models import build
from ..taps import ModuleOutput, example_output, find_taps, module_outputs

_FRAMES = 16


@dataclass(frozen=True)
class TapCandidates:
    """Modules at which a network can be tapped.

    Attributes:
        modules: all modules whose output is a feature map, in the order in which they run.
        automatic: names of the modules that `--taps auto` takes.
        failure: why there is no automatic choice, a sentence, or "".
    """

    modules: list[ModuleOutput]
    automatic: list[str]
    failure: str

    @property
    def outer_modules(self) -> list[ModuleOutput]:
        """Modules that lie no deeper than those of the automatic choice."""
        depths = [module.depth for module in self.modules if module.name in self.automatic]
        return [module for module in self.modules if module.depth <= max([2, *depths])]


def tap_candidates(
    model: str, *, image_size: int = 32, num_classes: int = 10, in_channels: int = 3
) -> TapCandidates:
    """List the modules at which a network can be tapped.

    Args:
        model: name of the network.
        image_size: side of the images in pixels; a network of clips gets 16 of them.
        num_classes: number of outputs of the network.
        in_channels: channels of the images.

    Raises:
        ConfigError: there is no such network, or it cannot take these images.
    """
    network = build(model, num_classes=num_classes, in_channels=in_channels)
    of_clips = any(isinstance(module, nn.Conv3d) for module in network.modules())
    frames = [_FRAMES] if of_clips else []
    example = torch.zeros(2, in_channels, *frames, image_size, image_size)
    example_output(network, example)
    try:
        automatic, failure = find_taps(network, example), ""
    except ConfigError as error:
        automatic, failure = [], str(error)
    return TapCandidates(module_outputs(network, example), automatic, failure)
