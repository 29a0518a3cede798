"""A network that serves as it is: a teacher."""

from typing import Any, Self

from torch import Tensor, nn


class Frozen(nn.Module):
    """A network that never trains: no gradient for its parameters, always in evaluation mode.

    Its tensors are left out of checkpoints (`trained_state`), since whoever made the run can make
    it again. Gradients still flow through it to its input.

    Args:
        network: any module; its parameters are changed to `requires_grad=False`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Does nothing: batch statistics of a teacher must not move."""
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's own output."""
        return self.network(*args, **kwargs)


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's state without what lies inside a `Frozen`."""
    frozen = tuple(f"{n}." if n else "" for n, m in module.named_modules() if isinstance(m, Frozen))
    return {k: v for k, v in module.state_dict().items() if not k.startswith(frozen)}
