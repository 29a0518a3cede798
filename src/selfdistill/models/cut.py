"""A network up to one of its modules, with a linear classifier behind it."""

import torch
from torch import Tensor, nn

from ..core import ConfigError
from ..functional.places import mean_over_places
from ..taps import as_map
from ..taps.feature_map import count_prefix_tokens
from ..taps.fx_split import trainable_trunk
from ..taps.stage_detection import evaluation_mode
from ..taps.taps import check_tap_names

MARK = "@"
"""Between the name of a network and that of the module that it is cut behind."""
_SIDES = (64, 224, 32, 96, 128, 256, 299, 384)  # of images that a network may take
_TIMES = 8  # of clips that it may take instead


class CutNetwork(nn.Module):
    """A network up to a tap, and a linear classifier on its feature's mean over places.

    Its tensors have the names that they have in the whole network, so that weights of that one fit;
    the classifier is `cut_head`.

    Args:
        network: the whole network, whose modules are shared.
        tap: name of a module that gives a map (B, C, H, W) or tokens.
        num_classes: outputs.
        in_channels: of the images.

    Attributes:
        dropped: names of the tensors of the whole network that lie behind the cut.
        cuts: its stages, as far as the whole network names its own.

    Raises:
        ConfigError: there is no such module, or the network cannot be cut behind it.
    """

    def __init__(self, network: nn.Module, tap: str, num_classes: int, in_channels: int) -> None:
        super().__init__()
        check_tap_names(network, [tap])
        trunk = trainable_trunk(network, tap)
        for name, module in trunk.named_children():
            self.add_module(name, module)
        for name, parameter in trunk.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in trunk.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.trunk_forward = type(trunk).forward  # of the attributes of whatever module it is given
        self.num_prefix_tokens = count_prefix_tokens(network)
        self.dropped = frozenset(network.state_dict()) - self.state_dict().keys()
        if not self.dropped:
            raise ConfigError(
                f"no weights lie behind '{tap}'; give the network without {MARK}{tap}"
            )
        stages = tuple(getattr(network, "cuts", None) or ())
        if tap in stages:
            self.cuts = stages[: stages.index(tap) + 1]
        self.cut_head = nn.Linear(self._width(in_channels), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), of a network for clips (B, C, T, H, W), to scores (B, K)."""
        scores: Tensor = self.cut_head(self._pooled(x))
        return scores

    def _pooled(self, x: Tensor) -> Tensor:
        feature = self.trunk_forward(self, x)
        return mean_over_places(as_map(feature, x.shape[2:], self.num_prefix_tokens))

    def _width(self, in_channels: int) -> int:
        """Channels of the feature, by the first size of images or clips that the network takes."""
        fault = ""
        images = [(side, side) for side in _SIDES]
        for size in (*images, *((_TIMES, *sides) for sides in images)):
            try:
                with evaluation_mode(self), torch.no_grad():
                    return self._pooled(torch.zeros(2, in_channels, *size)).shape[1]
            except Exception as error:  # network code may raise anything
                fault = fault or str(error).splitlines()[0]
        raise ConfigError(f"the network cannot be cut there: {fault}; choose a module that it runs")
