"""Frozen networks, and the state of the modules around them."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from .batch import Batch


class Frozen(nn.Module):
    """A network that never trains: no gradient for its parameters, always in evaluation mode.

    Gradients still flow through it to its input.

    Args:
        network: any module; its parameters are changed to `requires_grad=False`.
        saved: whether checkpoints keep its tensors: not where it is given to the run, as a teacher,
            but where the run creates it, as a snapshot.
    """

    def __init__(self, network: nn.Module, *, saved: bool = False) -> None:
        super().__init__()
        self.network, self.saved = network.requires_grad_(False), saved
        super().train(False)

    def train(self, mode: bool = True) -> Self:
        """No operation, so that batch statistics stay fixed."""
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's own output."""
        return self.network(*args, **kwargs)

    @torch.no_grad()
    def outputs(self, batch: Batch, view: int = 0) -> Any:
        """The network's outputs for a view of a batch, which carry no gradient.

        They are those that the batch brings, if it does; else the network is run.

        Args:
            batch: see `Batch.teacher_outputs`.
            view: 0 for its `inputs`, i for the i-th of its `views`.
        """
        if batch.teacher_outputs:
            return batch.teacher_outputs[view]
        return self((batch.inputs, *batch.views)[view])


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's state without the `Frozen` networks that are not saved.

    A tensor with several names is listed once, under the first of them.
    """
    frozen = tuple(
        f"{name}." if name else ""
        for name, part in module.named_modules(remove_duplicate=False)
        if isinstance(part, Frozen) and not part.saved
    )
    state: dict[str, Tensor] = {}
    collected: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not name.startswith(frozen) and id(tensor) not in collected:
            collected.add(id(tensor))
            state[name] = tensor.detach()
    return state


def averaged_state(module: nn.Module) -> dict[str, Tensor]:
    """The trained state that a moving average is taken of.

    What a module remembers of single images, the buffers that its `memory_buffers` names, is left
    out: nothing reads an average of it, and it is as large as the training set.
    """
    remembered = {
        f"{prefix}.{buffer}" if prefix else buffer
        for prefix, part in module.named_modules()
        for buffer in getattr(part, "memory_buffers", ())
    }
    return {n: t for n, t in trained_state(module).items() if n not in remembered}


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Load tensors by their names, as `load_state_dict` does, from a mapping that is no state dict.

    A state dict carries versions of its layers' layouts, without which some networks (torchvision's
    MNASNet) load nothing, and files do not keep them. Those of the module itself are assumed.

    Raises:
        RuntimeError: a shape differs or, if strict, a name.
    """
    state = module.state_dict()  # for its versions
    state.clear()
    state.update(tensors)
    module.load_state_dict(state, strict=strict)
