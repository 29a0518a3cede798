"""A network up to one of its modules, with a classifier behind it."""

import copy

import torch
import torch.fx
from torch import Tensor, nn

from ..core import ConfigError
from ..functional.places import mean_over_places, pooled_to_size
from ..modules.bottlenecks import SlimBottleneck
from ..taps import Taps, as_map
from ..taps.feature_map import count_prefix_tokens
from ..taps.fx_split import trainable_trunk
from ..taps.stage_detection import evaluation_mode
from ..taps.taps import check_tap_names

MARK = "@"
"""Between the name of a network and that of the module that it is cut behind."""
BOTTLENECK = "+bottleneck"
"""Behind the module's name, for a bottleneck before the classifier."""
_SIDES = (64, 224, 32, 96, 128, 256, 299, 384)  # of images that a network may take
_TIMES = 8  # of clips that it may take instead


# what looks at shapes stays a call in a trace, so that a cut network can be split at its taps
torch.fx.wrap("as_map")
torch.fx.wrap("mean_over_places")


class CutNetwork(nn.Module):
    """A network up to a tap, and a linear classifier on its feature's mean over places.

    Its tensors have the names that they have in the whole network, so that weights of that one fit;
    the classifier is `cut_head`, and `cut_bottleneck` what may lie before it.

    Args:
        network: the whole network, whose modules are shared.
        tap: name of a module that gives a map (B, C, H, W) or tokens.
        num_classes: outputs.
        in_channels: of the images.
        bottleneck: whether a `HalvingBottleneck` comes before the classifier, with as many channels
            as the whole network's last feature: an exit at this tap that is trained by itself.

    Attributes:
        dropped: names of the tensors of the whole network that lie behind the cut.
        added: names of the bottleneck's tensors, which the whole network lacks.
        cuts: its stages, as far as the whole network names its own.

    Raises:
        ConfigError: there is no such module, or the network cannot be cut behind it.
    """

    def __init__(
        self,
        network: nn.Module,
        tap: str,
        num_classes: int,
        in_channels: int,
        *,
        bottleneck: bool = False,
    ) -> None:
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
        self.num_prefix_tokens, self.gives_map = count_prefix_tokens(network), False
        self.dropped = frozenset(network.state_dict()) - self.state_dict().keys()
        if not self.dropped:
            raise ConfigError(
                f"no weights lie behind '{tap}'; give the network without {MARK}{tap}"
            )
        stages = tuple(getattr(network, "cuts", None) or ())
        if tap in stages:
            self.cuts = stages[: stages.index(tap) + 1]
        example = self._example(in_channels)
        shape = self._shape(example)
        with evaluation_mode(self):
            feature = self.trunk_forward(self, example)
        # of such a feature nothing depends on the image's size, so a trace leads from tap to tap
        self.gives_map = as_map(feature, example.shape[2:], self.num_prefix_tokens) is feature
        self.cut_bottleneck: nn.Module | None = None
        self.added: frozenset[str] = frozenset()
        if bottleneck:
            last = _last_shape(network, example)
            self.cut_bottleneck, shape = HalvingBottleneck(shape, last), last
            names = self.cut_bottleneck.state_dict()
            self.added = frozenset(f"cut_bottleneck.{name}" for name in names)
        self.cut_head = nn.Linear(shape[0], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), of a network for clips (B, C, T, H, W), to scores (B, K)."""
        x = self._map(x)
        if self.cut_bottleneck is not None:
            x = self.cut_bottleneck(x)
        scores: Tensor = self.cut_head(mean_over_places(x))
        return scores

    def _map(self, x: Tensor) -> Tensor:
        feature: Tensor = self.trunk_forward(self, x)
        return feature if self.gives_map else as_map(feature, x.shape[2:], self.num_prefix_tokens)

    def _shape(self, example: Tensor) -> tuple[int, ...]:
        with evaluation_mode(self):
            return tuple(self._map(example).shape[1:])

    def _example(self, in_channels: int) -> Tensor:
        """The first images or clips that the network takes."""
        fault = ""
        images = [(side, side) for side in _SIDES]
        for size in (*images, *((_TIMES, *sides) for sides in images)):
            example = torch.zeros(2, in_channels, *size)
            try:
                self._shape(example)
            except Exception as error:  # network code may raise anything
                fault = fault or str(error).splitlines()[0]
            else:
                return example
        raise ConfigError(f"the network cannot be cut there: {fault}; choose a module that it runs")


class HalvingBottleneck(nn.Module):
    """A `SlimBottleneck` of images of any size: it halves the sides, down to 4 and no further.

    This is what an exit has where the last feature has half as many rows and columns.

    Args:
        shape: (C, H, W) of the feature, or (C, T, H, W).
        last: that of the last feature; the output has its channels.
    """

    def __init__(self, shape: tuple[int, ...], last: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = SlimBottleneck(shape, last).layers

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_last, h, w)."""
        out: Tensor = self.layers(_halved(x))
        return out


@torch.fx.wrap
def _halved(x: Tensor) -> Tensor:
    """A map of half as many rows and columns, of four where these would be fewer."""
    return pooled_to_size(x, [min(side, max(-(-side // 2), 4)) for side in x.shape[2:]])


def _last_shape(network: nn.Module, example: Tensor) -> tuple[int, ...]:
    """Of the last feature of a network, which stays without hooks."""
    return list(Taps(copy.deepcopy(network), example=example).shapes.values())[-1]
