"""Gradients that are reversed, or kept out of a module."""

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
    """The identity, whose gradient is multiplied by -scale.

    The gradient reversal of Ganin and Lempitsky 2015, https://arxiv.org/abs/1409.7495, Eq. 11: in
    front of a discriminator it trains the layers before it to maximize the discriminator's loss.
    """
    identity: Tensor = _Reverse.apply(x, scale)
    return identity


def call_with_frozen_parameters(module: nn.Module, *inputs: Tensor) -> Tensor:
    """The module's output, with gradients for the inputs and none for the module's parameters.

    For a generator's loss term, so that one backward pass can serve it and the discriminator's own
    term.
    """
    frozen = {name: parameter.detach() for name, parameter in module.named_parameters()}
    output: Tensor = torch.func.functional_call(module, frozen, inputs)
    return output
