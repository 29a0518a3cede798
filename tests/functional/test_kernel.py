"""Inner products and the discrepancy of channels against numpy and explicit outer products."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.functional.kernel import channel_discrepancy, gram

seeds = st.integers(0, 1000)


def maps(seed: int, channels: int = 4) -> torch.Tensor:
    return torch.randn(3, channels, 5, 2, generator=torch.Generator().manual_seed(seed))


def by_outer_products(x: torch.Tensor, y: torch.Tensor) -> float:
    """The kernel (x·y)² is the inner product of outer products: no kernel is needed."""
    means = []
    for z in (x, y):
        rows = z.double().numpy().reshape(len(z), z.shape[1], -1)
        rows = rows / np.linalg.norm(rows, axis=2, keepdims=True)
        means.append(np.stack([np.mean([np.outer(r, r) for r in sample], 0) for sample in rows]))
    return float(((means[0] - means[1]) ** 2).sum((1, 2)).mean())


def test_gram_equals_numpy():
    x, y = torch.randn(2, 3, 7), torch.randn(2, 5, 7)
    want = np.einsum("bnd,bmd->bnm", x.numpy(), y.numpy())
    np.testing.assert_allclose(gram(x, y).numpy(), want, rtol=1e-5, atol=1e-6)


def test_gram_is_fp32_under_autocast():
    x = torch.randn(6, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x.T).dtype == torch.bfloat16
        products = gram(x, x)
    assert products.dtype == torch.float32
    torch.testing.assert_close(products, x @ x.T)


def test_gram_without_numbers():
    x = torch.empty(4, 3, device="meta")
    assert gram(x, x).shape == (4, 4)


def test_golden_numbers():
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    teacher = torch.tensor([[[[1.0, 1.0]]]])
    assert channel_discrepancy(student, teacher).item() == pytest.approx(0.5, abs=1e-6)
    assert channel_discrepancy(student, student).item() == 0


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 6), st.integers(1, 6))
def test_equals_explicit_outer_products(seed, channels, others):
    x, y = maps(seed, channels), maps(seed + 1, others)
    got = channel_discrepancy(x, y).item()
    assert got == pytest.approx(by_outer_products(x, y), rel=1e-4, abs=1e-5)
    assert got == pytest.approx(channel_discrepancy(y, x).item(), rel=1e-4, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_blind_to_order_and_scale_of_each_channel(seed):
    x, y = maps(seed), maps(seed + 1, 6)
    scales = 0.1 + torch.rand(1, 4, 1, 1, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        channel_discrepancy(scales * x.flip(1), y), channel_discrepancy(x, y)
    )
    same = channel_discrepancy(x, torch.cat([x, x.flip(1)], 1))  # twice the set is the same set
    assert same.item() == pytest.approx(0, abs=1e-6)


def test_gradient_is_the_slope_of_numpy():
    x, y, towards = maps(0).requires_grad_(), maps(1, 6), maps(2).double()
    channel_discrepancy(x, y).backward()
    at, step = x.detach().double(), 1e-5
    rise = by_outer_products(at + step * towards, y) - by_outer_products(at - step * towards, y)
    assert (x.grad * towards).sum().item() == pytest.approx(rise / (2 * step), rel=1e-3)


def test_a_dead_channel_has_a_finite_gradient():
    x = maps(0)
    x[:, 1] = 0
    x.requires_grad_()
    channel_discrepancy(x, maps(1)).backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad[:, 0].abs().max() > 0
