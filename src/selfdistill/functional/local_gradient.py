"""A backward pass that is run at once, so that nothing of its graph has to be kept."""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_FP16_SCALE = 2.0**10
"""Factor of the gradients while they are computed in fp16, whose smallest number is 6e-8.

A scaler of the whole loss multiplies them too late. It grows to some 1e5 and falls back after an
overflow, which a constant cannot: this one leaves room for gradients up to 64.
"""


class _Precomputed(torch.autograd.Function):
    """The identity of a loss, whose gradients of the parameters are known."""

    @staticmethod
    def forward(loss: Tensor, gradients: tuple[Tensor, ...], *parameters: nn.Parameter) -> Tensor:
        return loss.view_as(loss)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1])  # which the backward pass frees

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(gradient.to(g.dtype) * g for g in ctx.saved_tensors)


def backward_now(loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """The loss, with its gradients computed already and its graph freed.

    Its backward pass multiplies these gradients by the one it is given and hands them to the
    parameters, so gradients accumulate, are scaled, clipped and exchanged between processes as
    those of any other loss. In place of the activations, the gradients are kept until then; they
    cannot be differentiated again. Hooks on a parameter's gradient (`Tensor.register_hook`) run
    twice, here and there.

    Args:
        loss: a 0-d tensor; nothing else may need its graph afterwards.
        parameters: those to be trained; the loss need not depend on all of them.

    Returns:
        The loss; without a graph where gradients are off or none of the parameters is in it.
    """
    parameters, device = list(parameters), loss.device.type
    if not (parameters and loss.requires_grad and torch.is_grad_enabled()):
        return loss.detach()
    autocasts = torch.amp.is_autocast_available(device)
    half = autocasts and torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    scale = _FP16_SCALE if half is torch.float16 else 1.0
    # a backward pass computes in the types of its forward pass, whatever autocast says
    with torch.autocast(device, enabled=False) if autocasts else nullcontext():
        start = torch.full_like(loss, scale)
        gradients = torch.autograd.grad(loss, parameters, start, allow_unused=True)
    pairs = [(p, g / scale) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    reached, known = zip(*pairs, strict=True) if pairs else ((), ())
    precomputed: Tensor = _Precomputed.apply(loss.detach(), known, *reached)
    return precomputed
