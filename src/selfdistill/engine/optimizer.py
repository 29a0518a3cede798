"""Optimizer, learning rate and moving average of the weights."""

import math
import warnings
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from ..core import ConfigError, Method
from ..core.fake_quantization import is_range
from .fine_tuning import FineTuning, parameter_groups
from .settings import TrainingSettings

_NO_TUNING = FineTuning()


def build_optimizer(
    method: Method,
    settings: TrainingSettings,
    tuning: FineTuning = _NO_TUNING,
    *,
    fused: bool = False,
) -> Optimizer:
    """The optimizer over the method's parameter groups: SGD, AdamW or one of timm's.

    A group may set `weight_decay` for itself, and `lr_scale`, a factor on the learning rate.

    Args:
        method: whose parameters it moves.
        settings: name, rate, decay and momentum.
        tuning: what of the network learns how fast.
        fused: whether SGD and AdamW are to be torch's fused ones, where Fabric can have them.

    Raises:
        ConfigError: nothing is left to train, or timm's optimizer cannot be used here.
    """
    groups = parameter_groups(method, settings, tuning)
    # Fabric does not clip what a fused optimizer is to unscale
    clipped = settings.precision == "fp16" and settings.clip_grad_norm
    kernels: dict[str, Any] = {"fused": True} if fused and not clipped else {}
    if settings.optimizer == "adamw":
        return AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay, **kernels)
    if settings.optimizer != "sgd":
        return _timm_optimizer(groups, settings)
    nesterov = settings.nesterov and settings.momentum > 0
    return SGD(
        groups,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=nesterov,
        weight_decay=settings.weight_decay,
        **kernels,
    )


def is_fused(optimizer: Optimizer) -> bool:
    """Whether an optimizer skips a step by a flag on the device, `found_inf`."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def init_momentum(optimizer: Optimizer) -> None:
    """Give each parameter of a fused SGD its momentum, which is zero.

    By itself torch gives it at the first step, and stops if a parameter has its first gradient
    later than another.
    """
    if not (isinstance(optimizer, SGD) and is_fused(optimizer)):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _timm_optimizer(groups: list[dict[str, Any]], settings: TrainingSettings) -> Optimizer:
    """An optimizer of timm, whose own defaults hold for all but rate, decay and momentum."""
    from timm import optim  # takes ten seconds to import

    create: Any = optim.create_optimizer_v2  # type: ignore[attr-defined]

    name = settings.optimizer
    numbers: dict[str, Any] = {
        "lr": settings.lr,
        "weight_decay": settings.weight_decay,
        "momentum": settings.momentum,
    }
    try:
        # some warn of packages that would make them faster
        with warnings.catch_warnings(action="ignore"):
            optimizer: Optimizer = create(groups, opt=name, **numbers)
    except (ImportError, RuntimeError, AssertionError, TypeError, ValueError) as error:
        # some need a CUDA extension of another package
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"optimizer '{name}' cannot be used here: {reason}; choose another"
        ) from None
    if getattr(optimizer, "is_second_order", False):
        raise ConfigError(
            f"optimizer '{name}' wants second derivatives, which the training loop does not "
            "compute; choose another, such as adamw"
        )
    if any(isinstance(value, Random) for value in vars(optimizer).values()):
        raise ConfigError(
            f"optimizer '{name}' draws from a random generator of its own, so that no run of it "
            "could be resumed exactly; choose another, such as muon"
        )
    return optimizer


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


def schedule_notes(settings: TrainingSettings) -> list[str]:
    """Sentences on parts of the learning rate's schedule that a run never comes to."""
    epochs, notes = settings.epochs, []
    if late := [m for m in settings.milestones if m >= epochs and settings.lr_schedule == "step"]:
        notes.append(
            f"the learning rate never drops at milestone {', '.join(map(str, late))}, since epochs "
            f"are counted from 0 and there are {epochs}; give earlier milestones, or more epochs"
        )
    if settings.warmup_epochs > epochs:
        notes.append(
            f"the learning rate never reaches {settings.lr:g}, since warmup_epochs = "
            f"{settings.warmup_epochs:g} and there are {epochs} epochs; give fewer, or more epochs"
        )
    return notes


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of every group, times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


class EMA:
    """An exponential moving average of a method's trained tensors, which no step depends on.

    Floating tensors move by ``average += (1 - d) * (value - average)``, d being the decay, but no
    more than ``(1 + step) / (10 + step)``, as in TensorFlow's ExponentialMovingAverage: otherwise
    the average of a short run would be its random initial weights for the most part. Counters are
    copied, and so are the ranges of layers in simulated int8, which begin at zero and are moving
    averages themselves.

    Args:
        state: the tensors to average; they are cloned.
        decay: in (0, 1), such as 0.999.
    """

    def __init__(self, state: dict[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in state.items()}

    @torch.no_grad()
    def update(self, state: dict[str, Tensor], step: int) -> None:
        """Move towards the values after a step, of which the first is number 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        floats = [n for n, value in self.state.items() if self._is_averaged(n, value)]
        torch._foreach_lerp_(
            [self.state[n] for n in floats], [state[n].detach() for n in floats], 1 - decay
        )
        for name, value in self.state.items():
            if not self._is_averaged(name, value):
                value.copy_(state[name])

    @staticmethod
    def _is_averaged(name: str, value: Tensor) -> bool:
        return value.is_floating_point() and not is_range(name)
