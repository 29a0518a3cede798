"""What of a network lies before one of its modules: everything that the module's output needs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import ConfigError
from .stage_detection import beside, evaluation_mode
from .taps import check_tap_names


class Upstream(NamedTuple):
    """What lies before the end of a module, the module included.

    Attributes:
        parameters: those that its output is computed from.
        modules: those that have run when it ends, and do not run again behind it.
    """

    parameters: set[nn.Parameter]
    modules: list[nn.Module]


def find_upstream(network: nn.Module, names: Sequence[str], example: Any) -> dict[str, Upstream]:
    """{module: what lies before its end}, found by one pass in evaluation mode and its gradients.

    A parameter lies before a module if the module's output depends on it, so that branches,
    shortcuts, tokens and position embeddings are told apart whatever the order of the code.

    Args:
        network: any module; nothing of it changes.
        names: dotted names of its modules.
        example: an input of the network.

    Raises:
        ConfigError: there is no such module, or the forward pass does not call it.
    """
    check_tap_names(network, names)
    calls: list[tuple[nn.Module, Any]] = []
    wanted = {network.get_submodule(name) for name in names}

    def record(module: nn.Module, args: Any, output: Any) -> None:
        calls.append((module, output if module in wanted else None))

    handles = [module.register_forward_hook(record) for module in network.modules()]
    try:
        with evaluation_mode(network), torch.enable_grad():
            network(beside(network, example))
    finally:
        for handle in handles:
            handle.remove()
    order = [module for module, _ in calls]
    return {name: _upstream(network, name, calls, order) for name in names}


def _upstream(
    network: nn.Module, name: str, calls: list[tuple[nn.Module, Any]], order: list[nn.Module]
) -> Upstream:
    module = network.get_submodule(name)
    if module not in order:
        raise ConfigError(
            f"the forward pass of {type(network).__name__} does not call '{name}'; name a module "
            "that it calls: `selfdistill taps MODEL` lists them"
        )
    first = order.index(module)
    behind = set(order[first + 1 :])
    modules = [m for m in dict.fromkeys(order[: first + 1]) if m not in behind]
    return Upstream(_parameters_of(network, _tensors(calls[first][1])), modules)


def _parameters_of(network: nn.Module, outputs: list[Tensor]) -> set[nn.Parameter]:
    """The parameters that outputs depend on by gradient."""
    outputs = [output for output in outputs if output.requires_grad]
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not (outputs and parameters):
        return set()
    total = torch.stack([output.float().sum() for output in outputs]).sum()
    grads = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    return {p for p, grad in zip(parameters, grads, strict=True) if grad is not None}


def _tensors(output: Any) -> list[Tensor]:
    """The floating-point tensors of a module's output."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    parts = list(output.values()) if isinstance(output, dict) else output
    return [t for part in parts for t in _tensors(part)] if isinstance(parts, list | tuple) else []
