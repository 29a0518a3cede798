"""Which loss term broke a step."""

import torch

from ..core import Batch, Method, Progress, StepOutput


def find_nonfinite_term(
    method: Method, steps: list[StepOutput], batches: list[Batch], progress: Progress
) -> str:
    """What is not finite: loss terms or, if all are, the first term whose gradient is not.

    The batches are run again for the latter, one backward pass a term; nothing is updated.

    Args:
        method: what is trained.
        steps, batches: of all passes that share the optimizer step.
        now: when it was.
    """
    terms = [(name, loss) for step in steps for name, loss in step.losses.items()]
    bad = dict.fromkeys(name for name, loss in terms if not torch.isfinite(loss))
    if bad:
        return f"the loss term {', '.join(bad)} is no longer finite"
    parameters = [p for p in method.parameters() if p.requires_grad]
    for batch in batches:
        for name, loss in method(batch, progress).losses.items():
            grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            if not all(torch.isfinite(g).all() for g in grads if g is not None):
                return f"the gradient of the loss term {name} is no longer finite"
    return "the gradient is no longer finite"
