"""A trained predictor as an independent network, without hooks and training-only modules."""

from typing import Any

from torch import Tensor, nn

from ..core import ArtifactError, ConfigError, Method, load_tensors, nearest
from ..core.fake_quantization import fake_quantized, remove_fake_quantization
from ..modules.exits import EarlyExit
from ..taps import Taps, as_map
from ..taps.fx_split import copy_without_hooks, truncate_at


class TruncatedExit(nn.Module):
    """The layers up to a tap, followed by the exit head attached there.

    Args:
        trunk: from the input to the tap, as `truncate_at` gives it.
        head: from the feature (B, C, H, W) to the output.
        prefix_tokens: of the network, see `as_map`.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, prefix_tokens: int = 0) -> None:
        super().__init__()
        self.trunk, self.head, self.prefix_tokens = trunk, head, prefix_tokens

    def forward(self, x: Tensor) -> Any:
        """The exit's output."""
        return self.head(as_map(self.trunk(x), x.shape[2:], self.prefix_tokens))


def extract_predictor(method: Method, name: str) -> nn.Module:
    """An independent copy of one predictor, in evaluation mode, without hooks, in float32.

    An exit becomes the layers up to its tap and its head; any other predictor is copied. Layers in
    simulated int8 become plain ones.

    Args:
        method: the trained method.
        name: of one of its predictors.

    Raises:
        ConfigError: there is no such predictor, the network cannot be cut at this exit, or the
            predictor reads the student's inner features and is no network of its own.
    """
    network = _copied_predictor(method, name)
    remove_fake_quantization(network)
    return network


def learned_ranges(method: Method, name: str) -> dict[str, tuple[float, float]]:
    """{layer: least and largest input} of an extracted predictor's layers in simulated int8."""
    layers = fake_quantized(_copied_predictor(method, name))
    ranges = {key: layer.input_range.tolist() for key, layer in layers.items()}
    return {key: (low, high) for key, (low, high) in ranges.items() if high > low}


def _copied_predictor(method: Method, name: str) -> nn.Module:
    networks = method.predictors()
    if name not in networks:
        raise ConfigError(f"there is no predictor '{name}'{nearest(name, networks)}")
    network = networks[name]
    if isinstance(network, EarlyExit):
        taps = network.student
        trunk = truncate_at(taps.network, network.name)
        network = TruncatedExit(trunk, network.head, taps.prefix_tokens)
    elif any(isinstance(module, Taps) for module in network.modules()):
        raise ConfigError(f"'{name}' helps to train and is no network by itself; take the student")
    return copy_without_hooks(network).eval()


_TRUNK_PREFIX = "trunk.network."  # of the truncated network that `truncate_at` returns


def predictor_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of an extracted predictor, under the keys of the network that was trained.

    Keys of an exit's head start with `head.`.

    Raises:
        ConfigError: a layer before the exit is called `head` as well.
    """
    return {key: tensor for key, (_, tensor) in _keyed_state(network).items()}


def load_predictor_state(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load what `predictor_state` returned into an extracted predictor of the same kind.

    Raises:
        ArtifactError: a key is missing or unknown, or a shape differs.
    """
    keys = {key: name for key, (name, _) in _keyed_state(network).items()}
    try:
        load_tensors(network, {keys[key]: tensors[key] for key in keys if key in tensors})
    except RuntimeError as error:
        raise ArtifactError(f"the weights do not fit ({str(error).splitlines()[-1]})") from None
    if unknown := tensors.keys() - keys.keys():
        raise ArtifactError(f"the weights do not fit (nothing is called '{min(unknown)}')")


def _keyed_state(network: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """{key in a file: (name in the module, tensor)}."""
    state = network.state_dict()
    if not isinstance(network, TruncatedExit):
        return {name: (name, tensor) for name, tensor in state.items()}
    keyed = {name.removeprefix(_TRUNK_PREFIX): (name, tensor) for name, tensor in state.items()}
    if len(keyed) < len(state):
        raise ConfigError(
            "a layer before the exit is called 'head', as the exit's own is; take --format onnx "
            "or pt2"
        )
    return keyed
