"""Attention maps against numpy and golden numbers; pooling two maps to one size."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.functional.attention import attention_map, pooled_to

seeds = st.integers(0, 1000)


def maps(seed: int) -> torch.Tensor:
    return torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(seed))


def test_golden_numbers():
    student = torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]])
    teacher = torch.ones(1, 2, 1, 2)
    student_map, teacher_map = attention_map(student), attention_map(teacher)
    torch.testing.assert_close(student_map, torch.tensor([[0.196116, 0.980581]]), rtol=0, atol=1e-6)
    assert (student_map - teacher_map).square().mean().item() == pytest.approx(0.167950, abs=1e-6)


def by_numpy(x: np.ndarray) -> np.ndarray:
    energy = (x**2).sum(1).reshape(len(x), -1)  # a sum, unlike ours
    return energy / np.linalg.norm(energy, axis=1, keepdims=True)


def test_equals_numpy():
    x = maps(0)
    np.testing.assert_allclose(attention_map(x).numpy(), by_numpy(x.double().numpy()), rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(0.01, 100))
def test_blind_to_scale_and_order_of_channels(seed, scale):
    x = maps(seed)
    torch.testing.assert_close(attention_map(scale * x), attention_map(x))
    torch.testing.assert_close(attention_map(-x.flip(1)), attention_map(x))


def test_each_image_has_its_own_map():
    x = maps(0)
    torch.testing.assert_close(attention_map(x)[1:2], attention_map(x[1:2]))
    torch.testing.assert_close(attention_map(x).norm(dim=1), torch.ones(3))


def test_gradient_is_the_slope_of_numpy():
    x, towards = maps(0).requires_grad_(), maps(1)
    weights = torch.linspace(-1, 1, 30)
    (attention_map(x) * weights).sum().backward()
    at, step = x.detach().double().numpy(), 1e-5 * towards.double().numpy()
    rise = by_numpy(at + step) - by_numpy(at - step)
    want = (rise * weights.double().numpy()).sum() / 2e-5
    assert (x.grad * towards).sum().item() == pytest.approx(want, rel=1e-3)


def test_a_dead_map_has_a_finite_gradient():
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    (attention_map(x) - 1).square().mean().backward()
    assert torch.isfinite(x.grad).all()


def test_half_precision_is_left_at_once():
    x = 300 * torch.ones(1, 2, 3, 3, dtype=torch.float16)  # the square would overflow
    torch.testing.assert_close(attention_map(x), torch.full((1, 9), 1 / 3))


def test_pools_the_larger_to_the_smaller():
    large, small = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    torch.testing.assert_close(pooled_to(large, small), F.avg_pool2d(large, 2))
    assert pooled_to(small, large) is small


@pytest.mark.parametrize(
    ("one", "other"), [((8, 4), (4, 8)), ((17, 1), (4, 4)), ((6, 6), (4, 5)), ((3, 3), (3, 3))]
)
def test_two_maps_meet_at_the_smaller_of_each_side(one, other):
    x, y = torch.randn(2, 3, *one), torch.randn(2, 3, *other)
    x, y = pooled_to(x, y), pooled_to(y, x)
    assert x.shape == y.shape == (2, 3, min(one[0], other[0]), min(one[1], other[1]))
