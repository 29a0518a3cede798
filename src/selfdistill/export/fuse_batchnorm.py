"""BatchNorm folded into the convolution before it, where that changes nothing but rounding."""

from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..taps.fx_split import copy_without_hooks

# Exactly these: a subclass may do more to its input or its weight than what is folded here.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class FusedNetwork(NamedTuple):
    """A network without the BatchNorms that could be folded.

    Attributes:
        network: a copy in which a folded norm is an `nn.Identity`.
        gone: norms that were folded.
        left: norms that are not.
    """

    network: nn.Module
    gone: int
    left: int


def fuse_batchnorm(network: nn.Module) -> FusedNetwork:
    """Fold every BatchNorm that directly follows a convolution which nothing else listens to.

    The pairs are found by `torch.fx`. What it cannot trace is searched part by part, and a norm in
    code that it cannot follow stays.

    Args:
        network: in evaluation mode; it is not changed.
    """
    twin = copy_without_hooks(network)
    gone = _fold(twin)
    left = sum(isinstance(module, _BatchNorm) for module in twin.modules())
    return FusedNetwork(twin, gone, left)


def _fold(module: nn.Module) -> int:
    try:
        with torch.no_grad():
            graph = fx.Tracer().trace(module)
    except Exception:  # whatever code does that is shown no numbers
        return sum(_fold(child) for child in module.children())
    pairs = _pairs(module, graph)
    for convolution, norm in pairs:
        pair: Any = module.get_submodule(convolution), module.get_submodule(norm)
        module.set_submodule(convolution, fuse_conv_bn_eval(*pair))
        module.set_submodule(norm, nn.Identity())
    return len(pairs)


def _pairs(module: nn.Module, graph: fx.Graph) -> list[tuple[str, str]]:
    """Names of convolutions and norms that can be one."""
    calls = [node for node in graph.nodes if node.op == "call_module"]
    times = Counter(node.target for node in calls)
    found = []
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        names = str(before.target), str(node.target)
        convolution, norm = map(module.get_submodule, names)
        fits = type(convolution) in _CONVOLUTIONS and _folds(norm) and not _hooked(convolution)
        if fits and len(before.users) == 1 and times[before.target] == times[node.target] == 1:
            found.append(names)
    return found


def _folds(norm: nn.Module) -> bool:
    """Whether it scales by what it has learned, not by the batch at hand."""
    if type(norm) not in _NORMS or _hooked(norm) or norm.training:
        return False
    return getattr(norm, "running_mean", None) is not None


def _hooked(module: nn.Module) -> bool:
    """Whether something happens before or after it, as with weight norms of the old kind."""
    return bool(module._forward_pre_hooks or module._forward_hooks)
