"""Gradients that are scaled, reversed, or kept out of a module."""

from typing import Any

import torch
from torch import Tensor, nn


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, scale: Tensor | float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | float], output: Tensor) -> None:
        scale = inputs[1]
        ctx.scale = None if isinstance(scale, Tensor) else scale
        if isinstance(scale, Tensor):
            ctx.save_for_backward(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        scale = ctx.saved_tensors[0] if ctx.scale is None else ctx.scale
        return (scale * gradient).to(gradient.dtype), None


def scale_grad(x: Tensor, scale: Tensor | float) -> Tensor:
    """The identity, whose gradient is multiplied by a number or a 0-d tensor without gradient.

    In front of a critic it weighs what the critic's loss does to the layers before it, and leaves
    the critic its full rate under every optimizer: a weight of the loss is under SGD also the
    critic's learning rate, and under Adam it is not.
    """
    if isinstance(scale, float) and scale == 1:
        return x
    identity: Tensor = _Scale.apply(x, scale)
    return identity


def reverse_grad(x: Tensor, scale: float = 1.0) -> Tensor:
    """The identity, whose gradient is multiplied by -scale.

    The gradient reversal of Ganin and Lempitsky 2015, https://arxiv.org/abs/1409.7495, Eq. 11: in
    front of a discriminator it trains the layers before it to maximize the discriminator's loss.
    """
    return scale_grad(x, -scale)


def call_with_frozen_parameters(module: nn.Module, *inputs: Tensor) -> Tensor:
    """The module's output, with gradients for the inputs and none for the module's parameters.

    For a generator's loss term, so that one backward pass can serve it and the discriminator's own
    term.
    """
    frozen = {name: parameter.detach() for name, parameter in module.named_parameters()}
    output: Tensor = torch.func.functional_call(module, frozen, inputs)
    return output
