"""What of a network lies before one of its modules: everything that the module's output needs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from ..core import ConfigError
from .stage_detection import beside, evaluation_mode, hooked
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
    """{module: what lies before its end}, found by one pass in evaluation mode and its graph.

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
    calls: list[tuple[nn.Module, list[Node]]] = []
    wanted = {network.get_submodule(name) for name in names}

    def record(module: nn.Module, args: Any, output: Any) -> None:
        # its nodes, since the output itself may be changed in place later, as by a shortcut
        calls.append((module, _nodes(output) if module in wanted else []))

    with hooked(network.modules(), record), evaluation_mode(network), torch.enable_grad():
        network(beside(network, example))
    order = [module for module, _ in calls]
    return {name: _upstream(network, name, calls, order) for name in names}


def _upstream(
    network: nn.Module, name: str, calls: list[tuple[nn.Module, list[Node]]], order: list[nn.Module]
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
    return Upstream(_parameters_before(network, calls[first][1]), modules)


def _parameters_before(network: nn.Module, nodes: list[Node]) -> set[nn.Parameter]:
    """The parameters that nodes of the graph are computed from."""
    seen: set[Node] = set()
    leaves: set[int] = set()
    while nodes:
        node = nodes.pop()
        if node not in seen:
            seen.add(node)
            leaves.add(id(getattr(node, "variable", None)))  # of a leaf its parameter
            nodes += [before for before, _ in node.next_functions if before is not None]
    return {p for p in network.parameters() if p.requires_grad and id(p) in leaves}


def _nodes(output: Any) -> list[Node]:
    """The nodes of the graph that a module's output comes from."""
    return [
        torch.autograd.graph.get_gradient_edge(tensor).node
        for tensor in _tensors(output)
        if tensor.requires_grad
    ]


def _tensors(output: Any) -> list[Tensor]:
    """The floating-point tensors of a module's output."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    parts = list(output.values()) if isinstance(output, dict) else output
    return [t for part in parts for t in _tensors(part)] if isinstance(parts, list | tuple) else []
