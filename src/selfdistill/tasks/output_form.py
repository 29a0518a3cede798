"""The form that outputs of a network must have."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..core import ConfigError


def require_tensor(network: nn.Module, output: Any) -> None:
    """Raise `ConfigError` if a network gives anything but a tensor, such as a tuple or an object.

    The sentence names the part that is meant, where there is one tensor of logits in it.
    """
    if isinstance(output, Tensor):
        return
    part = "the scores"
    if isinstance(getattr(output, "logits", None), Tensor):
        part = "its output's .logits"
    elif isinstance(output, Mapping):
        keys = [key for key, value in output.items() if isinstance(value, Tensor)]
        part = f"one of its tensors ({', '.join(map(repr, keys))})" if keys else part
    raise ConfigError(
        f"{type(network).__name__} gives {type(output).__name__} and not a tensor; wrap it in a "
        f"module whose forward returns {part} alone"
    )
