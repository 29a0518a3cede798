"""Profile of the first training step: value and gradient norm of each loss term."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from ..core import STUDENT, Batch, Method, Progress
from ..recipe.build_run import RunComponents
from .network import taps_of

_MAX_GRADIENT_RATIO = 10  # of a term to the supervised one


@dataclass(frozen=True)
class TermProfile:
    """One term of the loss.

    Attributes:
        name: as it is logged.
        value: weighted, as it enters the sum.
        gradient: norm of its gradient at the student's parameters.
        gradient_at_tap: norm of its gradient at the student's last tap; None where none is read.
        gradient_elsewhere: norm of its gradient at all other trained parameters: heads, critics,
            peers.
    """

    name: str
    value: float
    gradient: float
    gradient_at_tap: float | None
    gradient_elsewhere: float


@dataclass(frozen=True)
class FirstStepReport:
    """First training step, without the optimizer's.

    Attributes:
        terms: of the loss, in the method's order.
        loss: their sum.
        gradient: norm of the sum's gradient at the student's parameters.
        images: size of the batch.
        without_gradient: names of trained parameters that no term reaches.
        notes: what the method says of its monitors, before anything is learned.
        warnings: sentences with a remedy.
    """

    terms: list[TermProfile]
    loss: float
    gradient: float
    images: int
    without_gradient: list[str]
    notes: dict[str, str]
    warnings: list[str]


def profile_first_step(components: RunComponents, fabric: Fabric, batch: Batch) -> FirstStepReport:
    """Run the first batch, and take the gradient of each term alone.

    The step changes statistics of normalization layers and no weights.
    """
    method = components.method.to(fabric.device).train()
    components.tuning.hold()
    numbers = (components.recipe.seed, 0, 0, 1 << 30)
    progress = Progress(*(torch.tensor(number, device=fabric.device) for number in numbers))
    with _last_features(method, components.network) as features, fabric.autocast():
        output = method(batch, progress)
    named = {name: p for name, p in method.named_parameters() if p.requires_grad}
    trained = list(named.values())
    student_ids = {id(p) for p in method.predictors()[STUDENT].parameters()}
    in_student = [id(p) in student_ids for p in trained]
    elsewhere = [not inside for inside in in_student]
    reached, total = [False] * len(trained), [torch.zeros_like(p) for p in trained]
    terms = []
    for name, loss in output.losses.items():
        grads = _gradients(loss, [*trained, *features])
        grads, feature_grads = grads[: len(trained)], grads[len(trained) :]
        reached = [r or g is not None for r, g in zip(reached, grads, strict=True)]
        total = [t if g is None else t + g for t, g in zip(total, grads, strict=True)]
        terms.append(
            TermProfile(
                name=name,
                value=float(loss.detach()),
                gradient=_norm(itertools.compress(grads, in_student)),
                gradient_at_tap=_norm(feature_grads) if features else None,
                gradient_elsewhere=_norm(itertools.compress(grads, elsewhere)),
            )
        )
    without_gradient = [name for name, r in zip(named, reached, strict=True) if not r]
    return FirstStepReport(
        terms=terms,
        loss=float(output.total.detach()),
        gradient=_norm(itertools.compress(total, in_student)),
        images=len(batch.inputs),
        without_gradient=without_gradient,
        notes=method.diagnose({name: float(value) for name, value in output.monitors.items()}),
        warnings=[*_gradient_warnings(without_gradient), *_term_warnings(terms)],
    )


@contextmanager
def _last_features(method: Method, network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the outputs of the student's last tap."""
    features: list[Tensor] = []

    def append(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            features.append(output)

    taps = taps_of(method, network)
    handle = taps and network.get_submodule(taps.names[-1]).register_forward_hook(append)
    try:
        yield features
    finally:
        if handle:
            handle.remove()


def _gradients(loss: Tensor, tensors: list[Tensor]) -> list[Tensor | None]:
    if not loss.requires_grad:  # a term that starts later, and is a constant until then
        return [None] * len(tensors)
    return list(torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True))


def _norm(grads: Iterable[Tensor | None]) -> float:
    known = [g.detach().float() for g in grads if g is not None]
    return float(get_total_norm(known)) if known else 0.0


def _gradient_warnings(names: list[str]) -> list[str]:
    if not names:
        return []
    examples = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return [
        f"{len(names)} trained parameter tensors get no gradient ({examples}): freeze or remove "
        "them"
    ]


def _term_warnings(terms: list[TermProfile]) -> list[str]:
    """Warn of terms whose gradient at the student is far larger than the supervised one's."""
    supervised = next((t for t in terms if t.name.rpartition("/")[2] == "task"), None)
    if supervised is None or not supervised.gradient:
        return []
    ratios = {term.name: term.gradient / supervised.gradient for term in terms}
    return [
        f"the gradient of term {name} at the student is {ratio:.0f} times that of "
        f"{supervised.name} in the first step; if that lasts, lower its weight"
        for name, ratio in ratios.items()
        if ratio > _MAX_GRADIENT_RATIO
    ]
