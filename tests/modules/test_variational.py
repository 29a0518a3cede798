"""The variational Gaussian: its start, its best variance in closed form, and what it trains."""

import math

import numpy as np
import pytest
import torch

from selfdistill.functional.information_bounds import variational_gaussian
from selfdistill.modules.variational import VariationalGaussian


def features(seed: int, channels: int) -> torch.Tensor:
    return torch.randn(4, channels, 3, 3, generator=torch.Generator().manual_seed(seed))


def test_without_an_error_it_starts_at_the_log_of_its_variance():
    torch.manual_seed(0)
    bound, source = VariationalGaussian(6, 4), features(0, 6)
    target = bound.mean(source).detach()
    assert bound(source, target).item() == pytest.approx(0.5 * math.log(5), abs=1e-5)


def test_equals_numpy():
    torch.manual_seed(0)
    bound, source, target = VariationalGaussian(6, 4), features(0, 6), features(1, 4)
    bound.raw_variance.data.normal_()
    with torch.no_grad():
        error = (target - bound.mean(source)).double().numpy()
    raw = bound.raw_variance.detach().double().numpy()[None, :, None, None]
    variance = np.log1p(np.exp(raw)) + 1e-5
    want = np.mean(error**2 / (2 * variance) + np.log(variance) / 2)
    assert bound(source, target).item() == pytest.approx(want, rel=1e-5)


def test_best_variance_is_the_mean_squared_error():
    target = features(0, 4) * torch.tensor([0.5, 1.0, 2.0, 4.0]).view(1, 4, 1, 1)
    best = target.square().mean((0, 2, 3))

    def slope(variance: torch.Tensor) -> torch.Tensor:
        raw = (variance - 1e-5).expm1().log().requires_grad_()
        variational_gaussian(target, torch.zeros_like(target), raw).backward()
        return raw.grad

    torch.testing.assert_close(slope(best), torch.zeros(4), rtol=0, atol=1e-6)
    assert (slope(1.1 * best) > 1e-4).all()
    assert (slope(0.9 * best) < -1e-4).all()


def test_a_good_prediction_is_rewarded_below_zero():
    x = features(0, 4)
    loss = variational_gaussian(x, x, torch.full((4,), -20.0))
    assert loss.item() == pytest.approx(0.5 * math.log(1e-5), rel=1e-3)


def test_a_huge_variance_does_not_overflow():
    x = features(0, 4)
    loss = variational_gaussian(x, -x, torch.full((4,), 1e4))  # exp of it would be inf
    assert loss.item() == pytest.approx(0.5 * math.log(1e4), rel=1e-2)


def test_mean_and_variances_learn_and_have_no_biases():
    torch.manual_seed(0)
    bound = VariationalGaussian(6, 4)
    bound(features(0, 6), features(1, 4)).backward()
    assert all(p.grad.abs().sum() > 0 for p in bound.parameters())
    assert [tuple(p.shape) for p in bound.mean.parameters()] == [
        (4, 6, 1, 1),
        (4, 4, 1, 1),
        (4, 4, 1, 1),
    ]
    before = bound.raw_variance.detach().clone()
    torch.optim.SGD(bound.parameters(), lr=0.1).step()
    assert (bound.raw_variance != before).all()
