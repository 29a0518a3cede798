"""The layer that a classifier ends with."""

from torch import nn

from ..core import ConfigError


def replace_last_layer(network: nn.Module, outputs: int) -> int:
    """Give a network a new last layer, in place, unless it has so many outputs already.

    Args:
        network: ends with a linear layer, or with a convolution as SqueezeNet and S3D do.
        outputs: how many are wanted.

    Returns:
        How many there were.

    Raises:
        ConfigError: it has neither.
    """
    kinds = nn.Linear | nn.Conv2d | nn.Conv3d
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, kinds)]
    if not layers:
        raise ConfigError(f"{type(network).__name__} ends with no layer that tells classes apart")
    name, last = layers[-1]
    before = len(last.weight)
    if before != outputs and isinstance(last, nn.Linear):
        network.set_submodule(name, nn.Linear(last.in_features, outputs))
    elif before != outputs and isinstance(last, nn.Conv2d | nn.Conv3d):
        network.set_submodule(name, type(last)(last.in_channels, outputs, 1))
    return before
