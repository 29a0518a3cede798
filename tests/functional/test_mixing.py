"""Mixup and CutMix against scipy's Beta distribution, numpy and a published formula."""

import numpy as np
import pytest
import torch
from scipy import stats

from selfdistill.core.keyed_random import purpose, uniform
from selfdistill.functional.mixing import batch_permutation, beta, cutmix, cutmix_box, mixup

DRAW = purpose("a test")
MANY = torch.arange(40_000)


@pytest.mark.parametrize("a", [0.2, 0.4, 0.5, 1.0, 2.0, 8.0])
def test_beta_is_that_of_scipy(a):
    x = beta(a, DRAW, 3, MANY).double().numpy()
    low = x[x < 0.5]  # where floats are dense enough for the mass that a small a has at the ends
    assert stats.kstest(low, lambda t: 2 * stats.beta(a, a).cdf(t)).pvalue > 0.01
    assert stats.binomtest(len(low), len(x)).pvalue > 0.01
    assert x.mean() == pytest.approx(0.5, abs=4 * x.std() / 200)
    assert x.var() == pytest.approx(1 / (4 * (2 * a + 1)), rel=0.03)


@pytest.mark.parametrize("a", [0.4, 1.0, 3.0])
def test_beta_upper_half_is_that_of_scipy(a):
    x = beta(a, DRAW, 4, MANY).double().numpy()
    assert stats.kstest(x, stats.beta(a, a).cdf).pvalue > 0.01


@pytest.mark.parametrize("a", [1e-3, 1e-2, 1e4])
def test_beta_stays_in_range_at_the_extremes(a):
    x = beta(a, DRAW, 5, MANY)
    assert x.isfinite().all()
    assert ((x >= 0) & (x <= 1)).all()


def test_beta_is_a_function_of_its_key():
    seed, step = torch.tensor(1), torch.tensor(2)
    torch.manual_seed(0)
    first = beta(0.4, DRAW, seed, step, MANY[:5])
    torch.manual_seed(1)
    assert torch.equal(first, beta(0.4, DRAW, seed, step, MANY[:5]))
    assert first.shape == (5,)
    assert first.unique().numel() == 5
    assert beta(0.4, DRAW, seed, step).shape == ()
    for other in ((purpose("another"), seed, step), (DRAW, seed, step + 1), (DRAW, seed + 1, step)):
        assert (beta(0.4, *other, MANY[:5]) != first).all()


def test_beta_needs_no_value():
    assert beta(0.2, DRAW, torch.zeros((), dtype=torch.int64, device="meta")).is_meta


def test_all_orders_are_equally_likely():
    orders = torch.stack([batch_permutation(DRAW, step, torch.arange(3)) for step in range(3000)])
    assert torch.equal(orders.sort(1)[0], torch.arange(3).expand(3000, 3))
    _, counts = orders.unique(dim=0, return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


def test_mixed_equals_numpy():
    torch.manual_seed(0)
    x, partners, ratio = torch.randn(4, 3, 5), torch.tensor([2, 0, 3, 3]), torch.tensor(0.3)
    array = x.double().numpy()
    want = 0.3 * array + 0.7 * array[[2, 0, 3, 3]]
    np.testing.assert_allclose(mixup(x, partners, ratio).numpy(), want, atol=1e-6)
    assert torch.equal(mixup(x, partners, torch.tensor(1.0)), x)
    assert torch.equal(mixup(x, partners, torch.tensor(0.0)), x[partners])


@pytest.mark.parametrize("size", [(32, 32), (7, 12), (1, 5)])
def test_box_is_that_of_the_public_code(size):
    h, w = size
    for key in range(60):
        ratio = beta(1.0, DRAW, 6, torch.tensor(key))
        box, stays = cutmix_box(size, ratio, DRAW, torch.tensor(key))
        sides = np.array([h, w]) * np.sqrt(np.float32(1) - ratio.numpy())
        cut = sides.astype(int)
        middle = [int(n * uniform(DRAW, torch.tensor(key), i)) for i, n in enumerate(size)]
        low = np.clip(middle - cut // 2, 0, size)
        high = np.clip(middle + cut // 2, 0, size)
        want = np.zeros(size, bool)
        want[low[0] : high[0], low[1] : high[1]] = True
        np.testing.assert_array_equal(box.numpy(), want)
        assert stays.item() == pytest.approx(1 - want.mean(), abs=1e-6)


def test_box_at_the_limits():
    box, stays = cutmix_box((8, 8), torch.tensor(1.0), DRAW, torch.tensor(0))
    assert not box.any()
    assert stays == 1
    shares = [cutmix_box((64, 64), torch.tensor(0.0), DRAW, torch.tensor(k))[1] for k in range(500)]
    # a box as large as the image, its middle anywhere: each side keeps 3/4 of itself on average
    assert torch.stack(shares).mean().item() == pytest.approx(1 - 9 / 16, abs=0.03)


def test_pasted_by_hand():
    x = torch.stack([torch.full((1, 2, 2), float(i)) for i in range(3)])
    box = torch.tensor([[True, False], [False, False]])
    out = cutmix(x, torch.tensor([1, 2, 2]), box)
    want = [[[1.0, 0.0], [0.0, 0.0]], [[2.0, 1.0], [1.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]]]
    assert out[:, 0].tolist() == want
    assert x[:, 0, 0, 0].tolist() == [0, 1, 2]  # what was given is as it was
