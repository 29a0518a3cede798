"""The loss term that made a step non-finite, and tensors that are not finite."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..core import Batch, DivergenceError, Method, Progress, StepOutput

_REMEDY = "start a new run with --precision fp32, a lower --lr, --warmup-epochs or --clip-grad-norm"


def find_nonfinite_term(
    method: Method, steps: Sequence[StepOutput], batches: Sequence[Batch], progress: Progress
) -> str:
    """Description of the non-finite loss terms or, if all are finite, of the first such gradient.

    For gradients the batches are run again, with one backward pass a term; nothing is updated.

    Args:
        method: the method in training.
        steps, batches: outputs and batches of all passes that share the optimizer step.
        progress: of that step.
    """
    terms = [(name, loss) for step in steps for name, loss in step.losses.items()]
    nonfinite = dict.fromkeys(name for name, loss in terms if not torch.isfinite(loss))
    if nonfinite:
        return f"the loss term {', '.join(nonfinite)} is no longer finite"
    parameters = [p for p in method.parameters() if p.requires_grad]
    for batch in batches:
        for name, loss in method(batch, progress).losses.items():
            grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            if not all(torch.isfinite(g).all() for g in grads if g is not None):
                return f"the gradient of the loss term {name} is no longer finite"
    return "the gradient is no longer finite"


def find_nonfinite_tensor(groups: Mapping[str, Mapping[str, Tensor]]) -> str:
    """Name of the first tensor that holds NaN or infinity, or ""; {group: {name: tensor}}."""
    named = [(n, t) for g in groups.values() for n, t in g.items() if t.is_floating_point()]
    if not named:
        return ""
    device = named[0][1].device
    finite = torch.stack([torch.isfinite(tensor).all().to(device) for _, tensor in named])
    return next((n for (n, _), flag in zip(named, finite.tolist(), strict=True) if not flag), "")


def divergence_error(fault: str, step: int, saved_step: int | None) -> DivergenceError:
    """The error of a run that cannot go on after a step; `saved_step` is its last checkpoint's."""
    left = "no checkpoint was saved before" if saved_step is None else f"step {saved_step} is saved"
    return DivergenceError(f"{fault} at step {step}; {left}; {_REMEDY}")
