"""What of a network is frozen and how fast its layers learn, by the keys of a recipe."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core import ConfigError, Method, Task
from ..core.fake_quantization import FakeQuantized
from ..engine.fine_tuning import FineTuning
from ..taps import find_taps
from ..taps.upstream import find_upstream
from .schema import Recipe


def tune_network(
    recipe: Recipe, network: nn.Module, method: Method, task: Task, *, given: bool = False
) -> FineTuning:
    """Freeze what the recipe says, and find the learning rates of the rest.

    Args:
        recipe: `freeze_until`, `layer_decay`, `head_lr_factor` and `batchnorm` are read.
        network: as it was given to the method; the parameters to freeze get no more gradients.
        method: was built around it.
        task: has an example of its input.
        given: whether the network is a module of the user's, whose weights nobody here knows.

    Raises:
        ConfigError: something is to be frozen that has random weights, or to learn in its own way
            that does not train, there is no such module, or the network's depth cannot be told.
    """
    if (recipe.freeze_until or recipe.batchnorm == "frozen") and not (recipe.weights or given):
        option = "--freeze-until" if recipe.freeze_until else "--batchnorm frozen"
        raise ConfigError(f"{option} would keep random weights as they are; give --weights")
    if option := _first_option(recipe):
        _check_trains(option, recipe.method, network, method)
    fixed: list[nn.Module] = []
    if recipe.freeze_until:
        frozen = _freeze(network, recipe.freeze_until, task.example)
        # the ranges of frozen layers have yet to be seen
        fixed += [module for module in frozen if not isinstance(module, FakeQuantized)]
    if recipe.batchnorm == "frozen":
        fixed += [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if recipe.layer_decay == 1 and recipe.head_lr_factor == 1:
        return FineTuning({}, fixed)
    named = [] if recipe.taps in ("auto", "stages") else recipe.taps.split(",")
    rates = recipe.layer_decay, recipe.head_lr_factor
    scales = lr_scales(network, task.example, *rates, [name.strip() for name in named])
    return FineTuning(scales, fixed)


def _first_option(recipe: Recipe) -> str:
    """The first option about how the network's own parts learn, or ""."""
    options = {
        "--freeze-until": bool(recipe.freeze_until),
        "--batchnorm frozen": recipe.batchnorm == "frozen",
        "--layer-decay": recipe.layer_decay != 1,
        "--head-lr-factor": recipe.head_lr_factor != 1,
    }
    return next((option for option, given in options.items() if given), "")


def _check_trains(option: str, name: str, network: nn.Module, method: Method) -> None:
    """Raises `ConfigError` if the method does not train the network that the option is about."""
    if method.needs.trained_student:
        raise ConfigError(f"method '{name}' does not train the network at all; leave {option} out")
    if not {*network.parameters()} & {*method.parameters()}:
        raise ConfigError(
            f"method '{name}' trains a network of its own making instead of the given one, which "
            f"{option} is about; leave it out"
        )


def _freeze(network: nn.Module, name: str, example: Any) -> list[nn.Module]:
    """Freeze all that a module's output is computed from; returns the modules before its end."""
    upstream = find_upstream(network, [name], example)[name]
    for parameter in upstream.parameters:
        parameter.requires_grad_(False)
    behind = _learning_parts(network, name)
    return [m for m in upstream.modules if m not in behind and not _learns(m)]


def _learning_parts(network: nn.Module, name: str) -> set[nn.Module]:
    """All inside of modules that learn, but for those that the named one is in.

    What has run before it and has no parameters, a dropout, may be of a branch beside it.
    """
    around = {name[:i] for i, letter in enumerate(name) if letter == "."} | {"", name}
    parts = [m for n, m in network.named_modules() if n not in around and _learns(m)]
    return {module for part in parts for module in part.modules()}


def _learns(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


def lr_scales(
    network: nn.Module,
    example: Any,
    layer_decay: float,
    head_factor: float = 1.0,
    named: Sequence[str] = (),
) -> dict[nn.Parameter, float]:
    """{parameter: factor on the learning rate}, by its depth in the network.

    At depth d of 0 … D the factor is layer_decay^(D − d). A network of timm knows its depths
    (`group_matcher`, as `timm.optim.param_groups_layer_decay` reads it); of other networks depth
    is counted by the automatic taps, or the `named` ones of a network without: what lies before the
    first, between two, and behind the last. What lies behind the last tap is the head, which gets
    its factor, too.

    Raises:
        ConfigError: the network has no taps that can be found.
    """
    try:
        taps = find_taps(network, example)
    except ConfigError:
        if not named:
            raise
        taps = [*named]
    depths = _depths_by_taps(network, taps, example)
    head = {p for p, depth in depths.items() if depth == len(taps)}
    depths = _depths_by_timm(network) or depths
    deepest = max(depths.values(), default=0)
    return {
        parameter: layer_decay ** (deepest - depth) * (head_factor if parameter in head else 1)
        for parameter, depth in depths.items()
    }


def _depths_by_taps(network: nn.Module, taps: list[str], example: Any) -> dict[nn.Parameter, int]:
    """The number of taps that lie before each parameter."""
    upstream = find_upstream(network, taps, example)
    return {
        p: next((i for i, tap in enumerate(taps) if p in upstream[tap].parameters), len(taps))
        for p in network.parameters()
        if p.requires_grad
    }


def _depths_by_timm(network: nn.Module) -> dict[nn.Parameter, int]:
    """The depths that a network of timm knows itself; of others none."""
    matcher = getattr(network, "group_matcher", None)
    if not callable(matcher):
        return {}
    from timm.models import group_parameters  # is imported already, by the network

    numbers = group_parameters(network, matcher(coarse=False), reverse=True)
    deepest = max(numbers.values(), default=0)
    return {p: numbers.get(n, deepest) for n, p in network.named_parameters() if p.requires_grad}
