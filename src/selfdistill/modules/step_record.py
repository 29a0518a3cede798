"""What a pass leaves behind for the end of its optimizer step."""

import torch
from torch import Tensor

from ..core import Method, StepOutput


class RecordingMethod(Method):
    """A method whose passes leave tensors for its memories, which `after_step` writes there.

    Since `forward` must not change the method's state, `record` puts them into `pending`, and
    `recorded` hands over what all passes of the step left. Between steps, when checkpoints are
    written, nothing is pending.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[Tensor, ...]] = []  # of the passes since the last optimizer step
        # Compiled, the list's length would be part of the code, and it grows with each pass. Not a
        # decorator: it imports the compiler, for which everybody would wait.
        self.record = torch.compiler.disable(record)

    def recorded(self) -> list[Tensor]:
        """The tensors of all passes, concatenated, or nothing if there was none; clears them."""
        parts = [torch.cat(tensors) for tensors in zip(*self.pending, strict=True)]
        self.pending.clear()
        return parts


def record(method: RecordingMethod, step: StepOutput, *update: Tensor) -> StepOutput:
    """The step; in training its update waits in `pending`.

    Args:
        method: called as an attribute of it, so that a copy of the method records for itself.
        step: of the pass.
        update: tensors without a gradient, indices (B,) of the images first.
    """
    if method.training:
        method.pending.append(update)
    return step
