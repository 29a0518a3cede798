"""Which parts of a network learn, and how fast: parameter groups, and modules that stay."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from ..core import ConfigError, Method
from .settings import TrainingSettings


class FineTuning(NamedTuple):
    """How the given network is tuned; all other parts of a method learn at the full rate.

    Attributes:
        lr_scales: {parameter: factor on the learning rate}; others have 1.
        fixed_modules: modules that stay in evaluation mode: those that are frozen, and BatchNorm
            layers whose statistics are.
    """

    lr_scales: Mapping[nn.Parameter, float] = {}
    fixed_modules: Sequence[nn.Module] = ()

    def hold(self) -> None:
        """Put the fixed modules into evaluation mode, whatever was done to those around them."""
        for module in self.fixed_modules:
            module.training = False


def parameter_groups(
    method: Method, settings: TrainingSettings, tuning: FineTuning
) -> list[dict[str, Any]]:
    """The method's groups, divided by what the settings say of decay and rate.

    A group that sets `weight_decay` for itself keeps it. Without `norm_decay` there is none for
    parameters of at most one dimension, for biases, and for those that a network of timm names by
    its `no_weight_decay`: the rule of `timm.optim.param_groups_weight_decay`.

    Raises:
        ConfigError: nothing is left to train.
    """
    undecayed = set() if settings.norm_decay else _undecayed(method)
    groups: list[dict[str, Any]] = []
    for group in method.param_groups():
        divided: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for parameter in group["params"]:
            free = parameter in undecayed and "weight_decay" not in group
            key = tuning.lr_scales.get(parameter, 1.0), free
            divided.setdefault(key, []).append(parameter)
        for (scale, free), parameters in divided.items():
            own = {**group, "params": parameters, "lr_scale": group.get("lr_scale", 1.0) * scale}
            groups.append(own | ({"weight_decay": 0.0} if free else {}))
    if not groups:
        raise ConfigError(
            "nothing is left to train: every parameter is frozen; freeze fewer modules"
        )
    return groups


def _undecayed(method: nn.Module) -> set[nn.Parameter]:
    """Parameters without weight decay."""
    free = {p for n, p in method.named_parameters() if p.ndim <= 1 or n.endswith(".bias")}
    for module in method.modules():
        if callable(names := getattr(module, "no_weight_decay", None)):
            free |= {p for n, p in module.named_parameters() if n in names()}
    return free
