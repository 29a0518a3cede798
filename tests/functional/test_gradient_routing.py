"""Gradients scaled, turned around, and kept out of a module."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from selfdistill.functional.gradient_routing import (
    call_with_frozen_parameters,
    reverse_grad,
    scale_grad,
)


def leaf(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).requires_grad_()


def cubed(x: torch.Tensor) -> torch.Tensor:
    return (x**3).sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_reversal_leaves_the_value_alone(dtype):
    x = leaf(3, 4).to(dtype)
    assert torch.equal(reverse_grad(x, 0.3), x)
    assert reverse_grad(x).dtype == dtype


@settings(max_examples=20, deadline=None)
@given(st.floats(-4, 4))
def test_gradient_comes_back_times_minus_the_scale(scale):
    x = leaf(5)
    cubed(reverse_grad(x, scale)).backward()
    torch.testing.assert_close(x.grad, -scale * 3 * x.detach() ** 2)


@pytest.mark.parametrize("scale", [0.0, 0.3, torch.tensor(0.3), torch.tensor(2.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scaled_gradient(scale, dtype):
    x = leaf(5).detach().to(dtype).requires_grad_()
    y = scale_grad(x, scale)
    assert torch.equal(y, x)
    cubed(y).backward()
    assert x.grad.dtype == dtype
    [want] = torch.autograd.grad(cubed(x), x)
    torch.testing.assert_close(x.grad, (scale * want).to(dtype))


def test_scaling_compiles_without_a_break():
    def step(x, scale):
        return cubed(scale_grad(x, scale)) + cubed(scale_grad(x, 0.5))

    x = leaf(5)
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for scale in (0.1, 0.2):
        scale = torch.tensor(scale)
        [got] = torch.autograd.grad(compiled(x, scale), x)
        torch.testing.assert_close(got, (scale + 0.5) * 3 * x.detach() ** 2)


def test_two_reversals_are_none():
    x = leaf(5)
    cubed(reverse_grad(reverse_grad(x))).backward()
    torch.testing.assert_close(x.grad, 3 * x.detach() ** 2)


def test_what_is_before_works_against_what_is_behind():
    """One descent: the discriminator's loss falls by its weights and rises by the input."""
    discriminator, x = nn.Linear(3, 1), leaf(6, 3)
    loss = discriminator(reverse_grad(x)).square().mean()
    of_x, of_discriminator = torch.autograd.grad(loss, [x, discriminator.weight])
    plain = discriminator(x).square().mean()
    want_x, want_discriminator = torch.autograd.grad(plain, [x, discriminator.weight])
    torch.testing.assert_close(of_x, -want_x)
    torch.testing.assert_close(of_discriminator, want_discriminator)


def test_reversal_needs_no_value():
    x = torch.zeros(4, device="meta", requires_grad=True)
    reverse_grad(x).sum().backward()
    assert x.grad.is_meta


def test_frozen_parameters_change_no_output():
    discriminator, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), leaf(6, 3)
    assert torch.equal(call_with_frozen_parameters(discriminator, x), discriminator(x))


def test_a_discriminator_is_not_trained_by_what_it_scores():
    discriminator, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), leaf(6, 3)
    call_with_frozen_parameters(discriminator, x).square().mean().backward()
    assert all(p.grad is None and p.requires_grad for p in discriminator.parameters())
    got, x.grad = x.grad, None
    discriminator(x).square().mean().backward()
    torch.testing.assert_close(got, x.grad)


def test_a_discriminator_learns_from_its_own_term_alone_in_one_backward_pass():
    discriminator, x = nn.Linear(3, 1), leaf(6, 3)
    discriminator_loss = discriminator(x.detach()).square().mean()
    (
        discriminator_loss + (1 - call_with_frozen_parameters(discriminator, x)).square().mean()
    ).backward()
    want = torch.autograd.grad(
        discriminator(x.detach()).square().mean(), list(discriminator.parameters())
    )
    for parameter, gradient in zip(discriminator.parameters(), want, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_discriminator_of_two_inputs():
    discriminator, x, y = nn.Bilinear(3, 4, 1), leaf(6, 3), leaf(6, 4, seed=1)
    call_with_frozen_parameters(discriminator, x, y).sum().backward()
    assert x.grad.abs().sum() > 0
    assert y.grad.abs().sum() > 0
    assert discriminator.weight.grad is None
