"""Optimizer, learning rate and moving average of the weights."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from ..core import ArtifactError, Method
from .settings import TrainingSettings


def build_optimizer(method: Method, settings: TrainingSettings) -> Optimizer:
    """SGD or AdamW over the method's parameter groups.

    A group may set `weight_decay` for itself, and `lr_scale`, a factor on the learning rate.
    """
    groups = [{"lr_scale": 1.0, **group} for group in method.param_groups()]
    if settings.optimizer == "adamw":
        return AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
    nesterov = settings.nesterov and settings.momentum > 0
    return SGD(
        groups,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=nesterov,
        weight_decay=settings.weight_decay,
    )


def resolve_lr_scale(groups: Iterable[Mapping[str, Any]], lr: float) -> list[dict[str, Any]]:
    """Parameter groups each with its own `lr`, for optimizers that do not know `lr_scale`."""
    return [
        {key: value for key, value in group.items() if key != "lr_scale"}
        | {"lr": lr * group.get("lr_scale", 1.0)}
        for group in groups
    ]


def learning_rate(
    settings: TrainingSettings, step: int, steps_per_epoch: int, cycles: int = 1
) -> float:
    """The rate at an optimizer step: a pure function, so a resume needs no scheduler's state.

    `warmup_epochs` rise linearly from lr / steps to lr. "step" multiplies by `lr_gamma` at each of
    the `milestones` (0-based epochs, counted from the start of the run); "cosine" falls to
    `lr_end_ratio` · lr over what follows the warm-up, in each of the `cycles` that the run is cut
    into.
    """
    warm = round(settings.warmup_epochs * steps_per_epoch)
    if step < warm:
        return settings.lr * (step + 1) / warm
    if settings.lr_schedule == "step":
        passed = sum(step // steps_per_epoch >= m for m in settings.milestones)
        return settings.lr * settings.lr_gamma**passed
    if settings.lr_schedule == "cosine":
        whole = settings.epochs * steps_per_epoch
        cycle = step * cycles // whole
        start, end = -(-cycle * whole // cycles), -(-(cycle + 1) * whole // cycles)
        warm, step, total = max(0, warm - start), step - start, end - start
        part = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
        return settings.lr * (settings.lr_end_ratio + (1 - settings.lr_end_ratio) * part)
    return settings.lr


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of every group, times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


class EMA:
    """An exponential moving average of a method's trained tensors, which no step depends on.

    Floating tensors move by ``average += (1 - decay) * (value - average)``, counters are copied.

    Args:
        state: the tensors to average; they are cloned.
        decay: in (0, 1), such as 0.999.
    """

    def __init__(self, state: dict[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in state.items()}

    @torch.no_grad()
    def update(self, state: dict[str, Tensor]) -> None:
        """Move towards the current values."""
        floats = [name for name, value in self.state.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.state[n] for n in floats], [state[n].detach() for n in floats], 1 - self.decay
        )
        for name, value in self.state.items():
            if not value.is_floating_point():
                value.copy_(state[name])


def optimizer_tensors(optimizer: Optimizer, method: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state to be saved, {parameter/slot: tensor}."""
    return {
        f"{name}/{slot}": value
        for name, parameter in method.named_parameters()
        for slot, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, method: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` returned; slots without a tensor start anew.

    Raises:
        ArtifactError: a tensor belongs to no parameter of the method.
    """
    parameters = dict(method.named_parameters())
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or value.shape not in (parameter.shape, ()):
            raise ArtifactError(f"the checkpoint's optimizer does not fit this method ({key})")
        state: dict[str, Any] = optimizer.state[parameter]
        # torch keeps a step counter on the CPU, and every other slot on its parameter's device.
        state[slot] = value if slot == "step" else value.to(parameter)
