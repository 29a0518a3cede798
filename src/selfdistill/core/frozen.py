"""A network that serves as it is, a teacher, and the tensors of those that are trained."""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn


class Frozen(nn.Module):
    """A network that never trains: no gradient for its parameters, always in evaluation mode.

    Gradients still flow through it to its input.

    Args:
        network: any module; its parameters are changed to `requires_grad=False`.
        saved: whether checkpoints keep its tensors. They need not where whoever made the run can
            make it again, as a teacher; they must where the run itself made it, as a snapshot.
    """

    def __init__(self, network: nn.Module, *, saved: bool = False) -> None:
        super().__init__()
        self.network, self.saved = network.eval().requires_grad_(False), saved

    def train(self, mode: bool = True) -> Self:
        """Does nothing: batch statistics of a teacher must not move."""
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's own output."""
        return self.network(*args, **kwargs)


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's state without what lies inside a `Frozen` that need not be saved.

    A tensor that is known by several names is there once, by the first of them.
    """
    frozen = tuple(
        f"{name}." if name else ""
        for name, part in module.named_modules()
        if isinstance(part, Frozen) and not part.saved
    )
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not name.startswith(frozen) and id(tensor) not in seen:
            seen.add(id(tensor))
            state[name] = tensor.detach()
    return state


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Load tensors by their names, as `load_state_dict` does, from a mapping that is no state dict.

    Tensors out of a file have lost the versions of their layers' layouts, which a state dict
    carries beside them, and some networks (torchvision's MNASNet) load nothing without. They are
    taken for what the module itself would write now.

    Raises:
        RuntimeError: a shape differs or, if strict, a name.
    """
    state = module.state_dict()  # for its versions
    state.clear()
    state.update(tensors)
    module.load_state_dict(state, strict=strict)
