"""Quantization-aware training: which networks of a method compute in simulated int8."""

from typing import Any

from torch import nn

from ..core import STUDENT, ConfigError, Method
from ..core.fake_quantization import (
    add_fake_quantization,
    fake_quantized,
    remove_fake_quantization,
)
from ..modules.exits import EarlyExit
from ..taps.stage_detection import beside, evaluation_mode, hooked


def quantize_method(method: Method, name: str, example: Any) -> None:
    """Simulate int8 in the student and the heads of its exits, in place.

    These are the networks that are exported. Teachers, peers, critics and whatever else only
    trains stay in float32, except for the layers of the student that they share. So do layers
    whose weights are read by others and that never run, as in timm's BEiT.

    Args:
        method: just built, see `build_method`.
        name: of the method, for sentences.
        example: an input of the student.

    Raises:
        ConfigError: the student does not learn, or has no layer that can be quantized.
    """
    if method.needs.trained_student:
        raise ConfigError(
            f"method '{name}' trains heads on a network that stays as it is, and quantize = aware "
            "is for networks that learn; leave --quantize out"
        )
    deployed = [
        network
        for key, network in method.predictors().items()
        if key == STUDENT or isinstance(network, EarlyExit)
    ]
    running = {module for network in deployed for module in _running(network, example)}
    for network in deployed:
        add_fake_quantization(network)
        remove_fake_quantization(network, kept=running)
    student = method.predictors()[STUDENT]
    if not fake_quantized(student):
        raise ConfigError(
            f"{type(student).__name__} has no layer that int8 can be simulated in, no nn.Conv2d, "
            "nn.Conv3d or nn.Linear; leave --quantize out"
        )


def _running(network: nn.Module, example: Any) -> set[nn.Module]:
    """The modules that an evaluation of the network calls."""
    running: set[nn.Module] = set()
    hooks = hooked(network.modules(), lambda module, *_: running.add(module))
    with hooks, evaluation_mode(network):
        network(beside(network, example))
    return running


def describe_quantization(network: nn.Module) -> str:
    """How much of a network computes in simulated int8, a phrase; "" of plain networks."""
    quantized = fake_quantized(network).values()
    if not quantized:
        return ""
    weights = sum(layer.weight.numel() for layer in quantized)
    matrices = sum(p.numel() for p in network.parameters() if p.dim() > 1)
    share = min(1.0, weights / max(1, matrices))
    return (
        f"aware, {len(quantized)} layers in simulated int8, {share:.0%} of the weights; so are all "
        "scores of the run"
    )
