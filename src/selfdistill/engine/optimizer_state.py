"""An optimizer's state as tensors of a checkpoint, and back."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from ..core import ArtifactError
from .optimizer import is_fused

_NUMBER = "number "
_GROUP = "group "


def optimizer_tensors(optimizer: Optimizer, method: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state to be saved, {parameter/slot: tensor}.

    Numbers among it are 0-d tensors under "number parameter/slot". What an optimizer counts for a
    whole group of parameters has the group's index for a parameter, "group 0/step".
    """
    saved: dict[str, Tensor] = {}
    for name, parameter in method.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            _add(saved, f"{name}/{slot}", value)
    given = {"params", "lr", "lr_scale", *optimizer.defaults}
    for number, group in enumerate(optimizer.param_groups):
        for slot in sorted(group.keys() - given):
            _add(saved, f"{_GROUP}{number}/{slot}", group[slot])
    return saved


def _add(saved: dict[str, Tensor], key: str, value: Any) -> None:
    if isinstance(value, Tensor):
        saved[key] = value
    elif isinstance(value, bool | int):
        kind = torch.bool if isinstance(value, bool) else torch.int64
        saved[_NUMBER + key] = torch.tensor(value, dtype=kind)
    elif isinstance(value, float):
        saved[_NUMBER + key] = torch.tensor(value, dtype=torch.float64)


def restore_optimizer(optimizer: Optimizer, method: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` returned; slots without a tensor start anew.

    Raises:
        ArtifactError: a tensor belongs to no parameter of the method.
    """
    parameters = dict(method.named_parameters())
    for key, tensor in tensors.items():
        name, _, slot = key.removeprefix(_NUMBER).rpartition("/")
        value: Any = tensor.item() if key.startswith(_NUMBER) else tensor
        if name.startswith(_GROUP):
            _group(optimizer, name, key)[slot] = value
            continue
        parameter = parameters.get(name)
        if parameter is None or not _fits(tensor, parameter, optimizer):
            raise _misfit(key)
        state: dict[str, Any] = optimizer.state[parameter]
        # A step counter is on the CPU unless the optimizer is fused; all else is with its parameter
        on_device = isinstance(value, Tensor) and (slot != "step" or is_fused(optimizer))
        state[slot] = _as_parameter(value, parameter) if on_device else value


def _as_parameter(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """A slot on its parameter's device, and in its memory format, by which sums are rounded."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _group(optimizer: Optimizer, name: str, key: str) -> dict[str, Any]:
    try:
        return optimizer.param_groups[int(name.removeprefix(_GROUP))]
    except (ValueError, IndexError):
        raise _misfit(key) from None


def _fits(tensor: Tensor, parameter: nn.Parameter, optimizer: Optimizer) -> bool:
    """Whether a slot may be of the parameter: of its shape, a number, or of timm's a summary."""
    if tensor.shape in (parameter.shape, ()):
        return True
    return not isinstance(optimizer, SGD | AdamW) and tensor.numel() < max(2, parameter.numel())


def _misfit(key: str) -> ArtifactError:
    return ArtifactError(f"the checkpoint's optimizer does not fit this method ({key})")
