"""One step, taken apart: what each loss term is worth, and whom it moves."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from ..core import Batch, Method, Progress
from ..recipe.build_run import RunComponents
from .network import taps_of

_LOUD = 10  # times the gradient of the supervised term


class TermProfile(NamedTuple):
    """One term of the loss.

    Attributes:
        name: as it is logged.
        value: weighted, as it enters the sum.
        gradient: norm of its gradient at the student's parameters.
        at_tap: norm of its gradient at the student's last tap; None where none is read.
        beyond: norm of its gradient at all else that trains: heads, critics, peers.
    """

    name: str
    value: float
    gradient: float
    at_tap: float | None
    beyond: float


class FirstStepReport(NamedTuple):
    """One training step before any other, without a move of the optimizer.

    Attributes:
        terms: of the loss, in the method's order.
        loss: their sum.
        gradient: norm of the sum's gradient at the student's parameters.
        images: of the batch.
        untouched: trained parameters that no term reaches, by the method's names.
        notes: what the method says of its own monitors, before anything is learned.
        warnings: what to do about it, in sentences.
    """

    terms: list[TermProfile]
    loss: float
    gradient: float
    images: int
    untouched: list[str]
    notes: dict[str, str]
    warnings: list[str]


def profile_first_step(parts: RunComponents, fabric: Fabric, batch: Batch) -> FirstStepReport:
    """Run the first batch, and take the gradient of each term alone.

    The step changes statistics of normalization layers and no weights.
    """
    method = parts.method.to(fabric.device).train()
    numbers = (parts.recipe.seed, 0, 0, 1 << 30)
    progress = Progress(*(torch.tensor(number, device=fabric.device) for number in numbers))
    with _watched(method, parts.network) as features, fabric.autocast():
        step = method(batch, progress)
    named = {name: p for name, p in method.named_parameters() if p.requires_grad}
    names, trained = list(named), list(named.values())
    own = {id(p) for p in parts.network.parameters()}
    mine = [id(p) in own for p in trained]
    terms, reached, total = [], [False] * len(trained), [torch.zeros_like(p) for p in trained]
    for name, loss in step.losses.items():
        grads = _gradients(loss, [*trained, *features])
        at_tap, grads = grads[len(trained) :], grads[: len(trained)]
        reached = [r or g is not None for r, g in zip(reached, grads, strict=True)]
        total = [t if g is None else t + g for t, g in zip(total, grads, strict=True)]
        terms.append(
            TermProfile(
                name,
                float(loss.detach()),
                _norm(g for g, m in zip(grads, mine, strict=True) if m),
                _norm(at_tap) if features else None,
                _norm(g for g, m in zip(grads, mine, strict=True) if not m),
            )
        )
    untouched = [name for name, r in zip(names, reached, strict=True) if not r]
    return FirstStepReport(
        terms,
        float(step.total.detach()),
        _norm(g for g, m in zip(total, mine, strict=True) if m),
        len(batch.inputs),
        untouched,
        method.diagnose({name: float(value) for name, value in step.monitors.items()}),
        [*_on_untouched(untouched), *_on_terms(terms)],
    )


@contextmanager
def _watched(method: Method, network: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, what the student's last tap gives is collected."""
    caught: list[Tensor] = []

    def catch(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            caught.append(output)

    taps = taps_of(method, network)
    handle = taps and network.get_submodule(taps.names[-1]).register_forward_hook(catch)
    try:
        yield caught
    finally:
        if handle:
            handle.remove()


def _gradients(loss: Tensor, tensors: list[Tensor]) -> list[Tensor | None]:
    if not loss.requires_grad:  # a term that only comes later, and is a constant until then
        return [None] * len(tensors)
    return list(torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True))


def _norm(grads: Any) -> float:
    there = [g.detach().float() for g in grads if g is not None]
    return float(get_total_norm(there)) if there else 0.0


def _on_untouched(names: list[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return [
        f"{len(names)} trained parameter tensors get no gradient ({shown}): freeze or remove them; "
        "training with several devices stops at them"
    ]


def _on_terms(terms: list[TermProfile]) -> list[str]:
    """Terms that drown the supervised one, by what they do to the student."""
    supervised = next((t for t in terms if t.name.rpartition("/")[2] == "task"), None)
    if supervised is None or not supervised.gradient:
        return []
    return [
        f"term {term.name} pulls {term.gradient / supervised.gradient:.0f} times as hard at the "
        f"student as {supervised.name} in the first step; if that lasts, lower its weight"
        for term in terms
        if term.gradient > _LOUD * supervised.gradient
    ]
