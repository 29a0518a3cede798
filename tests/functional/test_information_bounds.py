"""Estimators against closed forms, scipy, torch and the Gaussian, whose information is known."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch.autograd import gradcheck

from selfdistill.functional.information_bounds import (
    CHANCE,
    donsker_varadhan,
    info_nce,
    nwj,
    roll_batch,
    variational_gaussian,
)
from selfdistill.modules.information_checks import POSITIVE_ESTIMATORS
from selfdistill.modules.mutual_information import ESTIMATORS, jensen_shannon

SAMPLES = 400_000
LOWEST_JSD_LOSS = {  # correlation: 2 log 2 - 2 JSD of a bivariate Gaussian, by quadrature
    0.0: 1.3863,
    0.3: 1.3625,
    0.5: 1.3125,
    0.7: 1.2107,
    0.8: 1.1190,
    0.9: 0.9572,
    0.95: 0.8022,
    0.99: 0.5036,
}
LOWEST_OF_COPIES = {  # (independent copies, correlation): by Monte Carlo
    (2, 0.5): 1.243,
    (2, 0.9): 0.656,
    (5, 0.5): 1.060,
    (5, 0.9): 0.2135,
    (10, 0.5): 0.820,
}
VID_RAW = math.log(math.expm1(5 - 1e-5))  # a variance of 5, where VID starts

scores = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20).map(torch.tensor)


def log_ratio(x: np.ndarray, y: np.ndarray, rho: float) -> np.ndarray:
    """log p(x, y) / (p(x) p(y)), by scipy's densities."""
    joint = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]])
    density = joint.logpdf(np.stack([x, y], -1)).reshape(x.shape)  # scipy squeezes
    return density - stats.norm.logpdf(x) - stats.norm.logpdf(y)


def true_scores(rho: float, negatives: int = 1, n: int = SAMPLES, seed: int = 0):
    """What the best critic says of n correlated pairs (n,) and of unrelated ones (n, negatives)."""
    rng = np.random.default_rng(seed)
    x, noise = rng.normal(size=(2, n))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    others = rng.normal(size=(n, negatives))
    positive = log_ratio(x, y, rho)
    negative = log_ratio(np.broadcast_to(x[:, None], others.shape), others, rho)
    return torch.tensor(positive), torch.tensor(negative)


def information(rho: float) -> float:
    return -0.5 * math.log(1 - rho**2)


def pair(positive: float, negative: float, n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((n,), positive), torch.full((n, 3), negative)


@pytest.mark.parametrize(
    ("positive", "negative", "want"),
    [
        (0.0, 0.0, 2 * math.log(2)),
        (2.0, 2.0, 2.253856),
        (-2.0, -2.0, 2.253856),
        (10.0, 10.0, 10.000092),
        (10.0, -10.0, 9.0798e-5),
    ],
)
def test_jsd_constants(positive, negative, want):
    loss = jensen_shannon(*pair(positive, negative)).item()
    assert loss == pytest.approx(want, rel=1e-6 if want > 1 else 1e-4)


def test_chance_is_the_loss_of_zero_scores():
    assert pytest.approx(jensen_shannon(*pair(0, 0)).item(), rel=1e-6) == CHANCE


def test_jsd_gradients_at_zero():
    positive, negative = torch.zeros(8, requires_grad=True), torch.zeros(8, 5, requires_grad=True)
    grads = torch.autograd.grad(jensen_shannon(positive, negative), (positive, negative))
    torch.testing.assert_close(grads[0], torch.full((8,), -1 / 16))
    torch.testing.assert_close(grads[1], torch.full((8, 5), 1 / 80))


@settings(max_examples=50, deadline=None)
@given(scores, scores)
def test_jsd_equals_numpy(positive, negative):
    want = np.logaddexp(0, -positive.double().numpy()).mean()
    want += np.logaddexp(0, negative.double().numpy()).mean()
    assert jensen_shannon(positive, negative[:, None]).item() == pytest.approx(want, rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(scores, st.data())
def test_positive_estimators_stay_positive(positive, data):
    rows = st.lists(
        st.floats(-50, 50, width=32), min_size=len(positive), max_size=len(positive)
    ).map(torch.tensor)
    negative = torch.stack([data.draw(rows), data.draw(rows)], -1)
    for name in POSITIVE_ESTIMATORS:
        assert ESTIMATORS[name](positive, negative).item() >= 0


def test_jsd_is_above_zero_while_fp32_can_tell():
    assert jensen_shannon(*pair(80.0, -80.0)).item() > 0


def test_jsd_does_not_fall_for_ever():
    """With one sign dropped the loss would go to minus infinity with the positive scores."""
    positive, negative = pair(0.0, 0.0)
    losses = [jensen_shannon(positive + up, negative).item() for up in (0, 1, 10, 1e3, 1e6)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(math.log(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["jsd", "infonce", "dv"])
@pytest.mark.parametrize(("positive", "negative"), [(1e4, -1e4), (-1e4, 1e4), (1e4, 1e4)])
def test_huge_scores_stay_finite(dtype, name, positive, negative):
    these = [t.to(dtype).requires_grad_() for t in pair(positive, negative)]
    loss = ESTIMATORS[name](*these)
    loss.backward()
    assert loss.isfinite()
    assert all(t.grad.isfinite().all() for t in these)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_half_precision_is_computed_in_fp32(name):
    torch.manual_seed(0)
    positive, negative = torch.randn(64) * 3, torch.randn(64, 7) * 3
    rough = ESTIMATORS[name](positive.bfloat16(), negative.bfloat16())
    assert rough.dtype == torch.float32
    exact = ESTIMATORS[name](positive.bfloat16().double(), negative.bfloat16().double())
    torch.testing.assert_close(rough, exact.float())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(
            ESTIMATORS[name](positive, negative), ESTIMATORS[name](positive, negative)
        )
        inside = ESTIMATORS[name](positive.bfloat16(), negative.bfloat16())
    torch.testing.assert_close(inside, rough)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_gradients_are_finite_differences(name):
    torch.manual_seed(0)
    these = [torch.randn(s, dtype=torch.double, requires_grad=True) for s in ((4,), (4, 3))]
    # the loss is fp32, so steps are wide and the tolerance is that of fp32
    assert gradcheck(ESTIMATORS[name], these, eps=1e-2, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("rho", LOWEST_JSD_LOSS)
def test_jsd_of_the_best_critic_of_a_gaussian(rho):
    loss = jensen_shannon(*true_scores(rho)).item()
    assert loss == pytest.approx(LOWEST_JSD_LOSS[rho], abs=0.01)


@pytest.mark.parametrize(("copies", "rho"), LOWEST_OF_COPIES)
def test_jsd_of_the_best_critic_of_copies(copies, rho):
    parts = [true_scores(rho, n=SAMPLES // 2, seed=seed) for seed in range(copies)]
    positive, negative = (sum(tensors) for tensors in zip(*parts, strict=True))
    loss = jensen_shannon(positive, negative).item()
    assert loss == pytest.approx(LOWEST_OF_COPIES[copies, rho], abs=0.01)


@pytest.mark.parametrize("wrong", [lambda s: s + 0.5, lambda s: 0.5 * s, lambda s: -s])
def test_every_other_critic_is_worse(wrong):
    positive, negative = true_scores(0.8)
    best = jensen_shannon(positive, negative)
    assert jensen_shannon(wrong(positive), wrong(negative)) > best + 0.005


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.5, 0.7, 0.8, 0.9])
def test_dv_and_nwj_of_the_best_critic_are_minus_the_information(rho):
    positive, negative = true_scores(rho)
    want = pytest.approx(-information(rho), abs=0.02)
    assert donsker_varadhan(positive, negative).item() == want
    assert nwj(positive + 1, negative + 1).item() == want


def test_dv_is_blind_to_a_constant():
    positive, negative = true_scores(0.8, n=1000)
    shifted = donsker_varadhan(positive + 7, negative + 7)
    torch.testing.assert_close(shifted, donsker_varadhan(positive, negative), atol=1e-5, rtol=0)


def test_dv_is_never_above_nwj():
    torch.manual_seed(0)
    positive, negative = torch.randn(50), torch.randn(50, 4)
    assert donsker_varadhan(positive, negative) <= nwj(positive, negative)


@pytest.mark.parametrize("rho", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("negatives", [1, 3, 15])
def test_infonce_bounds_the_information(rho, negatives):
    loss = info_nce(*true_scores(rho, negatives, n=20_000)).item()
    bound = math.log(negatives + 1) - loss
    assert 0 < bound <= min(math.log(negatives + 1), information(rho) + 0.02)


def test_infonce_gets_tighter_with_negatives():
    bounds = [
        math.log(m + 1) - info_nce(*true_scores(0.9, m, n=20_000)).item() for m in (1, 3, 15, 63)
    ]
    assert bounds == sorted(bounds)
    assert bounds[-1] == pytest.approx(information(0.9), abs=0.04)


def test_infonce_equals_scipy_and_cross_entropy():
    torch.manual_seed(0)
    positive, negative = 5 * torch.randn(6, 4), 5 * torch.randn(6, 4, 9)
    scores = torch.cat([positive[..., None], negative], -1)
    numbers = scores.double().numpy()
    want = (special.logsumexp(numbers, -1) - numbers[..., 0]).mean()
    assert info_nce(positive, negative).item() == pytest.approx(want, rel=1e-6)
    first = torch.zeros(24, dtype=torch.long)
    torch.testing.assert_close(
        info_nce(positive, negative), F.cross_entropy(scores.reshape(24, 10), first)
    )


def test_infonce_with_one_negative_is_logistic():
    torch.manual_seed(0)
    positive, negative = torch.randn(9), torch.randn(9)
    want = -special.log_expit((positive - negative).double().numpy()).mean()
    assert info_nce(positive, negative[:, None]).item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("negatives", [1, 7])
def test_infonce_of_zero_scores(negatives):
    loss = info_nce(torch.zeros(5), torch.zeros(5, negatives)).item()
    assert loss == pytest.approx(math.log(negatives + 1))


def test_vid_at_its_start():
    x = torch.ones(2, 3, 4, 4)
    loss = variational_gaussian(x, x, torch.full((3,), VID_RAW))
    assert pytest.approx(4.9932291827136215) == VID_RAW
    assert loss.item() == pytest.approx(0.8047189562170501)


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4), (5, 3, 4, 2)])
def test_vid_equals_scipy(shape):
    torch.manual_seed(0)
    target, mean, raw = torch.randn(shape), torch.randn(shape), torch.randn(3)
    deviation = np.sqrt(special.log1p(np.exp(raw.double().numpy())) + 1e-5)
    deviation = deviation.reshape(-1, *[1] * (len(shape) - 2))
    density = stats.norm.logpdf(target.double().numpy(), mean.double().numpy(), deviation)
    want = -density.mean() - 0.5 * math.log(2 * math.pi)
    assert variational_gaussian(target, mean, raw).item() == pytest.approx(want, rel=1e-5)


def test_vid_is_least_where_the_variance_is_the_error():
    torch.manual_seed(0)
    target = 1.5 * torch.randn(4000, 1)
    raws = torch.linspace(-3, 4, 200, requires_grad=True)
    losses = torch.stack(
        [variational_gaussian(target, torch.zeros_like(target), r[None]) for r in raws]
    )
    best = F.softplus(raws[losses.argmin()]) + 1e-5
    assert best.item() == pytest.approx(target.square().mean().item(), rel=0.05)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_places_without_a_negative_do_not_count(name):
    torch.manual_seed(0)
    positive, negative = torch.randn(4), torch.randn(4, 4)
    diagonal = torch.eye(4, dtype=torch.bool)
    without = negative[~diagonal].view(4, 3)
    masked = negative.masked_fill(diagonal, -torch.inf).requires_grad_()
    loss = ESTIMATORS[name](positive, masked)
    torch.testing.assert_close(loss, ESTIMATORS[name](positive, without))
    loss.backward()
    assert masked.grad.isfinite().all()
    assert masked.grad[diagonal].eq(0).all()


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
@pytest.mark.parametrize(("b", "cells"), [(2, 1), (3, 4), (5, 2)])
def test_own_pairs_among_all_do_not_count(name, b, cells):
    torch.manual_seed(0)
    every = (3 * torch.randn(b, cells, b)).requires_grad_()  # [vector, cell, image of the cell]
    own = torch.eye(b, dtype=torch.bool)[:, None].expand(b, cells, b)
    others = every.masked_fill(own, -torch.inf)
    positive = torch.stack([every[i, :, i] for i in range(b)])
    want, loss = ESTIMATORS[name](positive, others), ESTIMATORS[name](positive, every, True)
    torch.testing.assert_close(loss, want)
    grads = [torch.autograd.grad(x, every, retain_graph=True)[0] for x in (loss, want)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("size", [10.0, 30.0, 80.0])
def test_own_pairs_leave_the_loss_above_zero(size):
    """Of a critic that is sure, their sum is far above that of all others."""
    every = torch.full((64, 16, 64), -size) + torch.rand(64, 16, 64)
    positive = size + torch.rand(64, 16)
    for i in range(64):
        every[i, :, i] = positive[i]
    loss = jensen_shannon(positive, every, True).item()
    assert 0 <= loss < 1e-3
    assert loss > 0 or size > 50


@pytest.mark.parametrize("b", range(2, 10))
def test_roll_leaves_nobody_in_place(b):
    x = torch.arange(2 * b).view(b, 2)
    for shift in range(1, b):
        rolled = roll_batch(x, torch.tensor(shift))
        assert (rolled != x).all()
        assert torch.equal(rolled, torch.roll(x, -shift, 0))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 300), st.data())
def test_roll_is_a_permutation(b, data):
    shift = data.draw(st.integers(1, b - 1))
    order = roll_batch(torch.arange(b), torch.tensor(shift)).tolist()
    assert sorted(order) == list(range(b))
    assert all(i != j for i, j in enumerate(order))
