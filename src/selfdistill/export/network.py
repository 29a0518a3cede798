"""A trained predictor by itself: nothing of it watches, and nothing hangs on it."""

from collections import OrderedDict

from torch import Tensor, nn

from ..core import ConfigError, Method, nearest
from ..modules.exits import EarlyExit
from ..segments import copied, until
from ..stages import as_map
from ..taps import Taps


def bare(method: Method, name: str) -> nn.Module:
    """An independent copy of one predictor, in evaluation mode, without hooks.

    An exit becomes the layers before it and its head; all else becomes a copy of what it is.

    Args:
        method: trained.
        name: one of its predictors.

    Raises:
        ConfigError: there is no such predictor, the network cannot be cut at this exit, or the
            predictor lives on the student's inner features and is no network of its own.
    """
    networks = method.predictors()
    if name not in networks:
        raise ConfigError(f"there is no predictor '{name}'{nearest(name, networks)}")
    network = networks[name]
    if isinstance(network, EarlyExit):
        trunk = until(network.student.network, network.name)
        parts = {"trunk": trunk, "map": _Map(), "head": network.head}
        network = nn.Sequential(OrderedDict(parts))
    elif any(isinstance(module, Taps) for module in network.modules()):
        raise ConfigError(f"'{name}' helps to train and is no network by itself; take the student")
    return copied(network).eval()


class _Map(nn.Module):
    """A feature as the exits take it, (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The map."""
        return as_map(x)
