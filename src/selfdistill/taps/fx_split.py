"""Splitting a network at its taps into a chain of modules, and copying such segments."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from ..core import ConfigError
from .stage_detection import evaluation_mode


def split_at(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """The network as a chain: input to first tap, tap to tap, last tap to output.

    Each module takes the output of the one before, as the network passes it on
    (`Taps.forward_features(x, raw=True)`), and the last one returns the network's output,
    bit-identical. The modules are traced with `torch.fx`, which looks only into modules that
    contain a tap, and they share the network's submodules: `reinitialized_copy` makes copies that
    train independently.

    Args:
        network: any module that takes one tensor; it is not changed.
        names: taps as `Taps` accepts them, shallowest first.

    Returns:
        One module more than there are names.

    Raises:
        ConfigError: the network cannot be traced, or a tap does not split it in two.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
        >>> first, second = split_at(network, ["0"])
        >>> x = torch.randn(5, 3, 8, 8)
        >>> torch.equal(second(first(x)), network(x))
        True
    """
    roots, chains = [], []
    try:
        with evaluation_mode(network), torch.enable_grad():
            for training in (True, False):
                network.train(training)
                roots.append(nn.Sequential(OrderedDict(network=network)))  # takes one tensor
                chains.append(_chain(_traced(roots[-1], names), names))
        for pair in zip(*chains, strict=True):
            _follow_mode(*pair)
    except _CannotSplit as reason:
        raise ConfigError(
            f"{type(network).__name__} cannot be cut into stages ({reason}); methods that copy "
            "stages cannot serve it, those that only read features can"
        ) from reason
    roots[0].training = network.training  # which the parts take over
    return [fx.GraphModule(roots[0], part, class_name="Segment") for part in chains[0]]


def stage_functions(
    network: nn.Module, names: Sequence[str]
) -> list[Callable[[nn.Module, Any], Any]]:
    """The chain of `split_at` as functions, which take the holder of the network and their input.

    The holder is a module whose attribute `network` is the network, such as its `Taps`; parameters,
    buffers and mode are those that the two have when a function is called. So the chain follows the
    network wherever it is moved, copied or loaded, and is itself no part of any state.

    Args:
        network: any module that takes one tensor; it is not changed.
        names: taps as `Taps` accepts them, shallowest first.

    Raises:
        ConfigError: as `split_at`.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
        >>> holder = nn.Sequential(OrderedDict(network=network))
        >>> first, second = stage_functions(network, ["0"])
        >>> x = torch.randn(5, 3, 8, 8)
        >>> torch.equal(second(holder, first(holder, x)), network(x))
        True
    """
    parts = split_at(network, names)
    for part in parts:
        for node in part.graph.nodes:  # type: ignore[union-attr]
            if node.op == "get_attr" and node.target.split(".")[0] not in ("network", "training"):
                raise ConfigError(
                    f"{type(network).__name__} cannot be run in stages (it creates a tensor of "
                    "constants in its forward pass); make that a buffer"
                )
    return [type(part).forward for part in parts]


def truncate_at(network: nn.Module, name: str) -> nn.Module:
    """The network from its input to a tap, in evaluation mode, without the layers behind it.

    Connections around the tap are dropped with them, so more networks can be truncated than can be
    split. The result shares the network's submodules.

    Args:
        network: any module that takes one tensor; it is not changed.
        name: the tap.

    Raises:
        ConfigError: the network cannot be traced.
    """
    try:
        with evaluation_mode(network), torch.enable_grad():
            root = nn.Sequential(OrderedDict(network=network))
            graph, (tap,) = _traced(root, [name])
            part = _between(graph, next(iter(graph.nodes)), tap, "")
    except _CannotSplit as reason:
        raise ConfigError(
            f"{type(network).__name__} cannot be cut behind '{name}' ({reason}); "
            "take the whole network"
        ) from reason
    return fx.GraphModule(root, part, class_name="Segment").eval()


def trainable_trunk(network: nn.Module, name: str) -> fx.GraphModule:
    """The network from its input to a tap, in either mode, its modules under their own names.

    As `truncate_at`, it shares the network's submodules, and connections around the tap are
    dropped.

    Args:
        network: any module that takes one tensor; it is not changed.
        name: the tap.

    Raises:
        ConfigError: the network cannot be traced, or computes something else in training.
    """
    graphs = []
    try:
        with evaluation_mode(network), torch.enable_grad():
            for training in (True, False):
                network.train(training)
                root = nn.Sequential(OrderedDict(network=network))
                graph, (tap,) = _traced(root, [name])
                graphs.append(_between(graph, next(iter(graph.nodes)), tap, ""))
        _follow_mode(*graphs)
    except _CannotSplit as reason:
        raise ConfigError(
            f"{type(network).__name__} cannot be cut behind '{name}' ({reason}); "
            "take the whole network"
        ) from reason
    for node in graphs[0].nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = str(node.target).removeprefix("network.")
    return fx.GraphModule(network, graphs[0], class_name="Segment")


def reinitialized_copy(module: nn.Module) -> nn.Module:
    """An independent copy with reinitialized weights, without forward hooks.

    The entries of each trained parameter of two or more dimensions are permuted at random, so that
    they keep the distribution of the network's own initialization. Vectors (norms, biases), buffers
    and frozen parameters are copied.
    """
    copied = copy_without_hooks(module)
    with torch.no_grad():
        for parameter in copied.parameters():
            if parameter.requires_grad and parameter.dim() > 1:
                order = torch.randperm(parameter.numel()).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view(parameter.shape))
    return copied


def copy_without_hooks(module: nn.Module) -> nn.Module:
    """A deep copy without forward hooks.

    The hooks of taps refer to the whole network, which would be copied, too. Forward pre-hooks
    stay, since they may be part of the computation.
    """
    memo: dict[int, Any] = {id(m._forward_hooks): OrderedDict() for m in module.modules()}
    return copy.deepcopy(module, memo)


# In-place operations that may follow a tap, since applying them twice changes nothing.
_IDEMPOTENT = ("", "ReLU", "ReLU6", "relu", "relu_", "relu6")


class _CannotSplit(Exception):  # noqa: N818  becomes a ConfigError with the network's name
    """The reason why a network cannot be split."""


class _TapTracer(fx.Tracer):
    """Traces only into modules that contain a tap."""

    def __init__(self, root: nn.Module, taps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True  # else values computed from buffers are constants
        self.nodes: dict[nn.Module, fx.Node] = {}
        self.taps = set(taps)
        self.containers = {m for m in root.modules() if (self.taps - {m}) & set(m.modules())}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m not in self.containers

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        out = super().call_module(m, forward, args, kwargs)
        if m in self.taps:
            self.nodes[m] = out.node
        return out


def _traced(root: nn.Module, names: Sequence[str]) -> tuple[fx.Graph, list[fx.Node]]:
    """The network's graph, and the nodes of the taps' outputs in it."""
    taps = [root.get_submodule(f"network.{name}") for name in names]
    tracer = _TapTracer(root, taps)
    try:
        graph = tracer.trace(root)
    except Exception as error:  # network code may raise anything when it gets no numbers
        reason = str(error).strip() or type(error).__name__
        raise _CannotSplit(f"it cannot be traced: {reason.splitlines()[0]}") from error
    if silent := [name for name, tap in zip(names, taps, strict=True) if tap not in tracer.nodes]:
        raise _CannotSplit(f"it does not always call tap '{silent[0]}'")
    tapped = [tracer.nodes[tap] for tap in taps]
    for node in graph.nodes:
        operation = _in_place(root, node)
        if operation and not node.users:
            raise _CannotSplit(f"it drops the result of {operation}, which works in place")
        if operation not in _IDEMPOTENT and set(tapped) & set(node.all_input_nodes):
            raise _CannotSplit(
                f"{operation} works in place on the feature at a tap; tap the {operation}"
            )
    return graph, tapped


def _in_place(root: nn.Module, node: fx.Node) -> str:
    """Name of the in-place operation of a node, or ""."""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        return type(module).__name__ if getattr(module, "inplace", False) else ""
    if node.op not in ("call_function", "call_method"):
        return ""
    name: str = getattr(node.target, "__name__", str(node.target))
    overwrites = node.kwargs.get("inplace") or (name.endswith("_") and not name.endswith("__"))
    return name if overwrites else ""


def _chain(traced: tuple[fx.Graph, list[fx.Node]], names: Sequence[str]) -> list[fx.Graph]:
    graph, taps = traced
    start, *_, end = graph.nodes
    starts, ends = [start, *taps], [*taps, end.args[0]]
    return [
        _between(graph, *pair, name)
        for pair, name in zip(zip(starts, ends, strict=True), ["", *names], strict=True)
    ]


def _between(graph: fx.Graph, start: fx.Node, end: Any, tap: str) -> fx.Graph:
    """The subgraph from one value to another; `tap` is the name of the first."""
    queue: list[fx.Node] = []
    fx.map_arg(end, lambda node: queue.append(node))
    needed = {start}
    while queue:
        node = queue.pop()
        if node not in needed:
            needed.add(node)
            queue += node.all_input_nodes
    part = fx.Graph()
    copies = {start: part.placeholder("x")}
    for node in graph.nodes:
        if node in needed and node is not start:
            if node.op == "placeholder":
                raise _CannotSplit(
                    f"a connection leads around tap '{tap}'; tap the block that contains it, or "
                    "take a network whose stages follow each other, without skips into a decoder"
                )
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(fx.map_arg(end, copies.__getitem__))
    return part


def _follow_mode(training: fx.Graph, evaluation: fx.Graph) -> None:
    """Make traced functional dropout follow the module's mode instead of a constant."""
    for nodes in zip(training.nodes, evaluation.nodes, strict=False):
        if [node.kwargs.get("training") for node in nodes] == [True, False]:
            for node, graph in zip(nodes, (training, evaluation), strict=True):
                with graph.inserting_before(node):
                    node.update_kwarg("training", graph.get_attr("training"))
    if training.python_code("self").src != evaluation.python_code("self").src:
        raise _CannotSplit("it computes something else in training than in evaluation")
