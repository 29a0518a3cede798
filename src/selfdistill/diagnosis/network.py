"""Report on the network: its taps, the modules that the method adds, and what inference costs."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from ..core import Method
from ..recipe.build_run import RunComponents
from ..records.exit_scores import ExitScore, score_exits
from ..taps import Taps


@dataclass(frozen=True)
class AddedModule:
    """A module that a method adds to the network.

    Attributes:
        name: its name in the method.
        kind: its class, with a number before it if there are several.
        parameters: number of trained parameters.
        frozen: number of parameters that do not train.
        buffer_bytes: size of its buffers, such as memories.
    """

    name: str
    kind: str
    parameters: int
    frozen: int
    buffer_bytes: int


@dataclass(frozen=True)
class NetworkReport:
    """The student before training.

    Attributes:
        name: of the network.
        parameters: number of parameters.
        frozen: number of those that do not train.
        taps: {name: (C, H, W) or (C, T, H, W)}, shallowest first; empty where the method reads no
            features.
        peers: {name: number of parameters} of the networks that are trained along.
        added: modules that the method adds, of which inference needs at most the heads of exits.
        predictors: parameters and multiply-adds of every exit and of the student.
        warnings: sentences with a remedy.
    """

    name: str
    parameters: int
    frozen: int
    taps: dict[str, tuple[int, ...]]
    peers: dict[str, int]
    added: list[AddedModule]
    predictors: list[ExitScore]
    warnings: list[str]


def check_network(components: RunComponents) -> NetworkReport:
    """Measure the network and what the method adds; multiply-adds are counted by running it."""
    method, recipe, network = components.method, components.recipe, components.network
    peers, task = components.peers, components.task
    taps = taps_of(method, network)
    networks = [network, *peers, *([components.teacher] if components.teacher else [])]
    names = recipe.peers or [recipe.model] * len(peers)
    predictors = score_exits(method, task.example, task.primary_metric, None, None)
    return NetworkReport(
        name=recipe.model,
        parameters=count_parameters(network),
        frozen=sum(p.numel() for p in network.parameters() if not p.requires_grad),
        taps=dict(taps.shapes) if taps else {},
        peers={
            f"{i} {name}": count_parameters(peer)
            for i, (name, peer) in enumerate(zip(names, peers, strict=True), 1)
        },
        added=_added_modules(method, networks),
        predictors=predictors,
        warnings=_exit_warnings(predictors),
    )


def _exit_warnings(predictors: list[ExitScore]) -> list[str]:
    student_macs = predictors[-1].macs
    expensive = [
        p.predictor for p in predictors if p.predictor.startswith("exit") and p.macs >= student_macs
    ]
    if not expensive:
        return []
    return [
        f"{', '.join(expensive)} with bottleneck and head cost more multiply-adds than the whole "
        "network: they teach, but save nothing; deeper --taps may"
    ]


def count_parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())


def taps_of(method: Method, network: nn.Module) -> Taps | None:
    """Taps by which the method reads the network's features."""
    taps = (module for module in method.modules() if isinstance(module, Taps))
    return next((t for t in taps if t.network is network), None)


def _added_modules(method: Method, networks: list[nn.Module]) -> list[AddedModule]:
    known = {id(t) for network in networks for t in (*network.parameters(), *network.buffers())}
    added = []
    for name, child in _children(method):
        parameters = [p for p in child.parameters() if id(p) not in known]
        buffers = [b for b in child.buffers() if id(b) not in known]
        kind = type(child).__name__
        if isinstance(child, nn.ModuleList) and len(child):
            kind = f"{len(child)} × {type(child[0]).__name__}"
        module = AddedModule(
            name=name,
            kind=kind,
            parameters=sum(p.numel() for p in parameters if p.requires_grad),
            frozen=sum(p.numel() for p in parameters if not p.requires_grad),
            buffer_bytes=sum(b.numel() * b.element_size() for b in buffers),
        )
        if module.parameters or module.frozen or module.buffer_bytes:
            added.append(module)
    return added


def _children(method: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Direct submodules of a method; of joined methods, those of each."""
    for name, child in method.named_children():
        if any(isinstance(part, Method) for part in child.children()):
            for part, joined_method in child.named_children():
                yield from _children(joined_method, f"{part}/")
        else:
            yield prefix + name, child
    for name, parameter in method.named_parameters(recurse=False):
        yield prefix + name, nn.ParameterList([parameter])
