"""Fusion of BatchNorm into the preceding convolution, exact up to rounding."""

from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..taps.fx_split import copy_without_hooks

# Exactly these types: a subclass may do more to its input or its weight than is fused here.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class FusedNetwork(NamedTuple):
    """A network without the BatchNorms that could be fused.

    Attributes:
        network: a copy in which a fused norm is an `nn.Identity`.
        num_fused: norms that were fused.
        num_remaining: norms that were not.
    """

    network: nn.Module
    num_fused: int
    num_remaining: int


def fuse_batchnorm(network: nn.Module) -> FusedNetwork:
    """Fuse every BatchNorm that is the only consumer of a convolution's output.

    The pairs are found by `torch.fx`. Modules that it cannot trace are searched child by child, and
    a norm that is called in untraceable code remains.

    Args:
        network: in evaluation mode; it is not changed.
    """
    copy = copy_without_hooks(network)
    num_fused = _fuse(copy)
    num_remaining = sum(isinstance(module, _BatchNorm) for module in copy.modules())
    return FusedNetwork(copy, num_fused, num_remaining)


def _fuse(module: nn.Module) -> int:
    try:
        with torch.no_grad():
            graph = fx.Tracer().trace(module)
    except Exception:  # a user's code may raise anything when traced
        return sum(_fuse(child) for child in module.children())
    pairs = _fusible_pairs(module, graph)
    for convolution, norm in pairs:
        pair: Any = module.get_submodule(convolution), module.get_submodule(norm)
        module.set_submodule(convolution, fuse_conv_bn_eval(*pair))
        module.set_submodule(norm, nn.Identity())
    return len(pairs)


def _fusible_pairs(module: nn.Module, graph: fx.Graph) -> list[tuple[str, str]]:
    """Names of convolutions and norms that can be fused."""
    calls = [node for node in graph.nodes if node.op == "call_module"]
    call_counts = Counter(node.target for node in calls)
    pairs = []
    for node in calls:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        names = str(source.target), str(node.target)
        convolution, norm = map(module.get_submodule, names)
        fusible = type(convolution) in _CONVOLUTIONS and not _has_hooks(convolution)
        called_once = call_counts[source.target] == call_counts[node.target] == 1
        if fusible and _is_fusible_norm(norm) and called_once and len(source.users) == 1:
            pairs.append(names)
    return pairs


def _is_fusible_norm(norm: nn.Module) -> bool:
    """Whether a module is a BatchNorm that normalizes by running statistics."""
    if type(norm) not in _NORMS or _has_hooks(norm) or norm.training:
        return False
    return getattr(norm, "running_mean", None) is not None


def _has_hooks(module: nn.Module) -> bool:
    """Whether hooks run before or after a module, as `torch.nn.utils.weight_norm` uses them."""
    return bool(module._forward_pre_hooks or module._forward_hooks)
