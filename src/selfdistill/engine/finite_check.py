"""Whether the losses and gradients of each optimizer step are finite."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from ..core import Batch, Method, Progress, StepOutput
from .host_copy import HostCopy
from .nonfinite import divergence_error, find_nonfinite_term

_MIN_SCALE = 2.0**-20
"""Of a gradient scaler: 36 skipped steps below its first one, and none that training needs."""


class Passes(NamedTuple):
    """The forward and backward passes of an optimizer step.

    Attributes:
        number: of the step, from 0.
        outputs, batches: of each pass.
        progress: of the step.
    """

    number: int
    outputs: Sequence[StepOutput]
    batches: Sequence[Batch]
    progress: Progress


class FiniteCheck:
    """Raises at a step whose losses or gradients are not finite, and which moves no weight.

    Where the host may wait it reads the flag at once. Where it may not, the optimizer heeds the
    flag, as it does that of a gradient scaler, and the host reads it in the next step.

    Args:
        method: in training.
        optimizer: with fused kernels if it is to heed the flag.
        saved_step: gives the step of the last checkpoint, or None.
        deferred: whether the flag is read in the next step.
        scaler: of gradients in fp16, which skips the steps whose gradients are not finite.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        saved_step: Callable[[], int | None],
        *,
        deferred: bool,
        scaler: GradScaler | None = None,
    ) -> None:
        self.method, self.optimizer, self.saved_step = method, optimizer, saved_step
        self.deferred, self.scaler = deferred, scaler
        self.pending: tuple[Passes, HostCopy] | None = None

    def check(self, passes: Passes, total: Tensor) -> None:
        """Check the step that the optimizer is to take now.

        Args:
            passes: of the step.
            total: 0-d; finite where losses and gradients are.

        Raises:
            DivergenceError: this step is not finite, or if deferred the one before.
        """
        finite = torch.isfinite(total.detach())
        before, self.pending = self.pending, (passes, HostCopy(finite))
        if not self.deferred:
            self.finish()
            return
        self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        if before:
            self._raise_unless_finite(*before)

    def unscaled(self, norm: Tensor) -> Tensor:
        """The norm of gradients as they are, of what a scaler made of them."""
        return norm if self.scaler is None else norm / self.scaler.scale(torch.ones_like(norm))

    def finish(self) -> None:
        """Read the flag that is not read yet, if there is one, and the scale of a scaler.

        Raises:
            DivergenceError: the last step was not finite, or no step has been for long.
        """
        pending, self.pending = self.pending, None
        if pending:
            self._raise_unless_finite(*pending)
            if self.scaler and self.scaler.get_scale() < _MIN_SCALE:
                fault = "the gradients have been infinite in fp16 for many steps"
                raise divergence_error(fault, pending[0].number, self.saved_step())

    def _raise_unless_finite(self, passes: Passes, finite: HostCopy) -> None:
        if not finite.read():
            fault = find_nonfinite_term(
                self.method, passes.outputs, passes.batches, passes.progress
            )
            raise divergence_error(fault, passes.number, self.saved_step())
