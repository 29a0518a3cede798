"""Tensors of a file matched to the parameters and buffers of a network."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core import ArtifactError
from ..core.fake_quantization import is_range

_COUNT = "num_batches_tracked"  # of batch norm; old files lack it, and nothing here needs it
_PREFERRED = ("student.", "model.", "network.", "net.", "backbone.", "module.")


class WeightsFit(NamedTuple):
    """Tensors by the network's names, and what a user should know of them, or ""."""

    tensors: dict[str, Tensor]
    remark: str


def fit_weights(state: Mapping[str, Tensor], network: nn.Module, source: str) -> WeightsFit:
    """Match tensors to a network by name.

    A prefix that all names share, or the names of one part of a larger model, is dropped. Where no
    name fits, but order, last parts of the names and shapes do, tensors are matched by their order.
    A head for other classes, or one that is missing, is left out: it keeps its initial values.

    Raises:
        ArtifactError: tensors are missing, of other shapes or unknown, are no weights, or are not
            finite.
    """
    expected = network.state_dict()
    renamed, remarks = rename_tensors(state, expected)
    # a network in simulated int8 finds its own ranges, and a plain one has none
    renamed = {k: v for k, v in renamed.items() if k in expected or not is_range(k)}
    dropped: frozenset[str] = getattr(network, "dropped", frozenset())  # of a network cut short
    if behind := dropped & renamed.keys():
        renamed = {k: v for k, v in renamed.items() if k not in behind}
        remarks.append(f"{len(behind)} tensors behind the cut left out")
    head = _head_modules(renamed, expected, network)
    needed = [k for k in expected if not k.endswith(_COUNT) and not is_range(k)]
    missing = [k for k in needed if k not in renamed]
    added: frozenset[str] = getattr(network, "added", frozenset())
    if added and not added & renamed.keys():  # a file of the whole network
        missing = [k for k in missing if k not in added]
        remarks.append(f"{len(added)} tensors of the bottleneck behind the cut start anew")
    other_shape = [k for k, v in renamed.items() if k in expected and v.shape != expected[k].shape]
    left_out = [k for k in expected if _module(k) in head]
    _check(
        {
            "missing": [k for k in missing if k not in left_out],
            "unexpected": [k for k in renamed if k not in expected],
            "of another shape": [
                f"{k} {tuple(renamed[k].shape)} for {tuple(expected[k].shape)}"
                for k in other_shape
                if k not in left_out
            ],
        },
        f"{source} do not fit {type(network).__name__}",
    )
    tensors = {k: v for k, v in renamed.items() if k not in left_out}
    _check_values(tensors, expected, source)
    if left_out:
        remarks.append(f"{_listed(left_out)} left out, since the head is for other classes")
    return WeightsFit(tensors, "; ".join(remarks))


def rename_tensors(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under the network's names, and remarks."""
    own = sum(name in expected for name in state)
    prefix, count = _prefix(state, expected)
    if count > own:
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        outside = len(state) - len(inside)
        return inside, [f"{outside} tensors outside of '{prefix}' left out"] if outside else []
    if not own and (ordered := _by_order(state, expected)):
        return ordered, ["no name fits, so the tensors were matched by order and shape"]
    return dict(state), []


def _prefix(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[str, int]:
    """The prefix before most names that then fit, and their number."""
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for i in range(1, len(parts)):
            if ".".join(parts[i:]) in expected:
                counts[".".join(parts[:i]) + "."] += 1
    if not counts:
        return "", 0
    most = max(counts.values())
    best = [prefix for prefix, count in counts.items() if count == most]
    return next((p for p in _PREFERRED if p in best), best[0]), most


def _by_order(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """The tensors by the network's names in the same order, if all but heads fit so."""
    given = [(k, v) for k, v in state.items() if not k.endswith(_COUNT)]
    names = [k for k in expected if not k.endswith(_COUNT)]
    if len(given) != len(names) or len(names) < 4:
        return None
    pairs = list(zip(given, names, strict=True))
    if any(k.rpartition(".")[2] != name.rpartition(".")[2] for (k, _), name in pairs):
        return None
    differ = [name for (_, v), name in pairs if v.shape != expected[name].shape]
    if any(name not in names[-2:] for name in differ):
        return None
    return {name: value for (_, value), name in pairs}


def _head_modules(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], network: nn.Module
) -> set[str]:
    """Names of layers that may start anew: other outputs of the same features, or none at all."""
    kinds = nn.Linear | nn.Conv2d | nn.Conv3d
    layers = [n for n, m in network.named_modules() if isinstance(m, kinds)]
    last = layers[-1:]
    absent = {n for n in last if not any(_module(k) == n for k in state)}
    outputs_differ = {
        _module(k)
        for k, v in state.items()
        if k in expected
        and v.shape != expected[k].shape
        and v.dim()
        and v.shape[1:] == expected[k].shape[1:]
    }
    return absent | {name for name in outputs_differ if name in layers}


def _check(defects: Mapping[str, list[str]], message: str) -> None:
    if any(defects.values()):
        parts = [f"{len(n)} {defect} ({_listed(n)})" for defect, n in defects.items() if n]
        raise ArtifactError(f"{message}: {', '.join(parts)}")


def _check_values(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str
) -> None:
    """Numbers of one kind with the network's, and finite."""
    for name, tensor in tensors.items():
        if name not in expected:
            continue
        if tensor.is_floating_point() != expected[name].is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ArtifactError(f"{source} hold {name} as {kind}, which is no weight; convert it")
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise ArtifactError(f"{source} hold numbers in {name} that are not finite")


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _listed(names: Iterable[str]) -> str:
    """`a, b, c, …`."""
    shown = list(names)
    return ", ".join(shown[:3]) + (", …" if len(shown) > 3 else "")
