"""Who learns from a term: gradients turned around, or kept out of a module."""

from typing import Any

import torch
from torch import Tensor, nn


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, scale: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.scale = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -ctx.scale * gradient, None


def reverse_grad(x: Tensor, scale: float = 1.0) -> Tensor:
    """`x` itself, whose gradient comes back times -scale.

    The gradient reversal of Ganin and Lempitsky 2015, https://arxiv.org/abs/1409.7495, Eq. 11: in
    front of a discriminator it makes what is before it work against what is behind it.
    """
    out: Tensor = _Reverse.apply(x, scale)
    return out


def call_with_frozen_parameters(module: nn.Module, *inputs: Tensor) -> Tensor:
    """The module's output, with gradients for the inputs and none for the module's parameters.

    What a generator needs of its discriminator, in one backward pass with the discriminator's own
    term.
    """
    fixed = {name: parameter.detach() for name, parameter in module.named_parameters()}
    out: Tensor = torch.func.functional_call(module, fixed, inputs)
    return out
