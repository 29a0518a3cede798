"""A trained predictor by itself: nothing of it watches, and nothing hangs on it."""

from typing import Any

from torch import Tensor, nn

from ..core import ArtifactError, ConfigError, Method, load_tensors, nearest
from ..modules.exits import EarlyExit
from ..taps import Taps, as_map
from ..taps.fx_split import copy_without_hooks, truncate_at


class TruncatedExit(nn.Module):
    """The layers before a tap, and the head that hangs there.

    Args:
        trunk: from the input to the tap, as `truncate_at` gives it.
        head: from the feature (B, C, H, W) to the output.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, x: Tensor) -> Any:
        """The exit's output."""
        return self.head(as_map(self.trunk(x), x.shape[-2:]))


def extract_predictor(method: Method, name: str) -> nn.Module:
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
        network = TruncatedExit(truncate_at(network.student.network, network.name), network.head)
    elif any(isinstance(module, Taps) for module in network.modules()):
        raise ConfigError(f"'{name}' helps to train and is no network by itself; take the student")
    return copy_without_hooks(network).eval()


_TRUNK = "trunk.network."  # where `truncate_at` puts the network that it cuts


def predictor_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of a bare network, by the names of the network that went into training.

    Those of an exit's head start with `head.`.

    Raises:
        ConfigError: a layer before the exit is called `head`, too.
    """
    return {new: tensor for new, (_, tensor) in _renamed(network).items()}


def load_predictor_state(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load what `predictor_state` gave into a bare network of the same kind.

    Raises:
        ArtifactError: a name is missing or too many, or a shape differs.
    """
    own = {old: tensors[new] for new, (old, _) in _renamed(network).items() if new in tensors}
    try:
        load_tensors(network, own)
    except RuntimeError as error:
        raise ArtifactError(f"the weights do not fit ({str(error).splitlines()[-1]})") from None
    if unknown := tensors.keys() - _renamed(network).keys():
        raise ArtifactError(f"the weights do not fit (nothing is called '{min(unknown)}')")


def _renamed(network: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """{name in a file: (name in the module, tensor)}."""
    state = network.state_dict()
    if not isinstance(network, TruncatedExit):
        return {name: (name, tensor) for name, tensor in state.items()}
    named = {name.removeprefix(_TRUNK): (name, tensor) for name, tensor in state.items()}
    if len(named) < len(state):
        raise ConfigError(
            "a layer before the exit is called 'head', as the exit's own is; take --format onnx "
            "or pt2"
        )
    return named
