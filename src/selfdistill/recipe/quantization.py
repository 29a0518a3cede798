"""Quantization-aware training: which networks of a method compute in simulated int8."""

from torch import nn

from ..core import STUDENT, ConfigError, Method
from ..core.fake_quantization import add_fake_quantization, fake_quantized
from ..modules.exits import EarlyExit


def quantize_method(method: Method, name: str) -> None:
    """Simulate int8 in the student and the heads of its exits, in place.

    These are the networks that are exported. Teachers, peers, critics and whatever else only
    trains stay in float32, except for the layers of the student that they share.

    Args:
        method: just built, see `build_method`.
        name: of the method, for sentences.

    Raises:
        ConfigError: the student does not learn, or has no layer that can be quantized.
    """
    if method.needs.trained_student:
        raise ConfigError(
            f"method '{name}' trains heads on a network that stays as it is, and quantize = aware "
            "is for networks that learn; leave --quantize out"
        )
    for key, network in method.predictors().items():
        if key == STUDENT or isinstance(network, EarlyExit):
            add_fake_quantization(network)
    student = method.predictors()[STUDENT]
    if not fake_quantized(student):
        raise ConfigError(
            f"{type(student).__name__} has no layer that int8 can be simulated in, no nn.Conv2d, "
            "nn.Conv3d or nn.Linear; leave --quantize out"
        )


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
