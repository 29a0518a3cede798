"""What is trained: the network and its taps, what the method adds, and what is left of it all."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from ..core import Method
from ..recipe.build_run import RunComponents
from ..records.exit_scores import ExitScore, score_exits
from ..taps import Taps


class AddedPart(NamedTuple):
    """A part that a method adds to the network.

    Attributes:
        name: where it lies in the method.
        kind: its class, with a number before it if there are several.
        parameters: trained ones.
        frozen: parameters that do not train.
        buffers: bytes of what it keeps besides.
    """

    name: str
    kind: str
    parameters: int
    frozen: int
    buffers: int


class NetworkReport(NamedTuple):
    """The student before training.

    Attributes:
        name: of the network.
        parameters: of it.
        frozen: those among them that do not train.
        taps: {name: (C, H, W)}, shallowest first; none where the method reads no features.
        peers: {name: parameters} of what is trained along.
        added: what the method adds, none of which is needed for inference but an exit's head.
        predictors: what remains: parameters and multiply-adds of every exit and of the student.
        warnings: what to do about it, in sentences.
    """

    name: str
    parameters: int
    frozen: int
    taps: dict[str, tuple[int, int, int]]
    peers: dict[str, int]
    added: list[AddedPart]
    predictors: list[ExitScore]
    warnings: list[str]


def check_network(parts: RunComponents) -> NetworkReport:
    """The network, its taps and what hangs on it; multiply-adds are counted by running it."""
    method, recipe = parts.method, parts.recipe
    watched = taps_of(method, parts.network)
    networks = [parts.network, *parts.peers, *([parts.teacher] if parts.teacher else [])]
    names = recipe.peers or [recipe.model] * len(parts.peers)
    rows = score_exits(method, parts.task.example, parts.task.primary_metric, None, None)
    return NetworkReport(
        recipe.model,
        count_parameters(parts.network),
        sum(p.numel() for p in parts.network.parameters() if not p.requires_grad),
        dict(watched.shapes) if watched else {},
        {
            f"{i} {name}": count_parameters(peer)
            for i, (name, peer) in enumerate(zip(names, parts.peers, strict=True), 1)
        },
        _added(method, networks),
        rows,
        _on_exits(rows),
    )


def _on_exits(rows: list[ExitScore]) -> list[str]:
    whole = rows[-1].macs
    dear = [r.predictor for r in rows if r.predictor.startswith("exit") and r.macs >= whole]
    if not dear:
        return []
    return [
        f"{', '.join(dear)} with bottleneck and head cost more multiply-adds than the whole "
        "network: they teach, but save nothing; deeper --taps may"
    ]


def count_parameters(network: nn.Module) -> int:
    """Parameters."""
    return sum(p.numel() for p in network.parameters())


def taps_of(method: Method, network: nn.Module) -> Taps | None:
    """What reads the network's features for the method."""
    watchers = (m for m in method.modules() if isinstance(m, Taps))
    return next((taps for taps in watchers if taps.network is network), None)


def _added(method: Method, networks: list[nn.Module]) -> list[AddedPart]:
    known = {id(t) for network in networks for t in (*network.parameters(), *network.buffers())}
    parts = []
    for name, child in _children(method):
        own = [p for p in child.parameters() if id(p) not in known]
        kept = [b for b in child.buffers() if id(b) not in known]
        found = AddedPart(
            name,
            f"{len(child)} × {type(child[0]).__name__}"
            if isinstance(child, nn.ModuleList) and len(child)
            else type(child).__name__,
            sum(p.numel() for p in own if p.requires_grad),
            sum(p.numel() for p in own if not p.requires_grad),
            sum(b.numel() * b.element_size() for b in kept),
        )
        parts += [found] if found.parameters or found.frozen or found.buffers else []
    return parts


def _children(method: nn.Module, above: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The direct parts of a method; of joined methods, those of each."""
    for name, child in method.named_children():
        if any(isinstance(part, Method) for part in child.children()):
            for part, inner in child.named_children():
                yield from _children(inner, f"{part}/")
        else:
            yield above + name, child
    for name, parameter in method.named_parameters(recurse=False):
        yield above + name, nn.ParameterList([parameter])
