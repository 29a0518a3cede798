"""Sinkhorn's plan against scaling in double precision, scipy's assignment, and its limits."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from selfdistill.functional.transport import sinkhorn_plan


def costs(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Cosine distances, 0 … 2, of random vectors."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (F.normalize(torch.randn(n, 8, generator=generator)) for n in (rows, columns))
    return 1 - x @ y.T


def scaled(cost: np.ndarray, regularization: float, iterations: int = 2000) -> np.ndarray:
    """Plan by multiplicative scaling of the kernel's rows and columns, in double precision."""
    rows, columns = cost.shape
    kernel, u, v = np.exp(-cost / regularization), np.ones(rows), np.ones(columns)
    for _ in range(iterations):
        v = 1 / columns / (kernel.T @ u)
        u = 1 / rows / (kernel @ v)
    return u[:, None] * kernel * v


@pytest.mark.parametrize(("rows", "columns"), [(9, 9), (5, 12), (12, 5), (1, 4)])
@pytest.mark.parametrize("regularization", [0.1, 1.0])
def test_equals_scaling_in_double_precision(rows, columns, regularization):
    cost = costs(rows, columns)
    plan = sinkhorn_plan(cost, regularization, 400)
    want = scaled(cost.double().numpy(), regularization)
    np.testing.assert_allclose(plan.numpy(), want, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_marginals_of_a_batch(seed):
    plan = sinkhorn_plan(costs(64, 64, seed), 0.1, 50)
    torch.testing.assert_close(plan.sum(1), torch.full((64,), 1 / 64))  # the last to be scaled
    torch.testing.assert_close(plan.sum(0), torch.full((64,), 1 / 64), rtol=1e-3, atol=0)


def test_identical_sets_of_three():
    """Off the diagonal the plan is e^(-1/ε) / (1 + 2 e^(-1/ε)) / 3."""
    cost = 1 - torch.eye(3)
    sharp, blurred = (sinkhorn_plan(cost, e, 50) for e in (0.05, 1.0))
    assert (sharp * cost).sum().item() == pytest.approx(4.1223072e-9, rel=1e-4)
    torch.testing.assert_close(sharp, torch.eye(3) / 3)
    assert (blurred * cost).sum().item() == pytest.approx(0.423883, abs=1e-6)


def test_little_regularization_assigns():
    cost = costs(7, 7)
    plan = sinkhorn_plan(cost, 0.003, 2000)
    rows, columns = linear_sum_assignment(cost.numpy())
    want = torch.zeros(7, 7)
    want[rows, columns] = 1 / 7
    torch.testing.assert_close(plan, want, rtol=0, atol=1e-3)


def test_much_regularization_spreads():
    torch.testing.assert_close(
        sinkhorn_plan(costs(4, 6), 1e5, 5), torch.full((4, 6), 1 / 24), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_stays_finite_where_the_kernel_vanishes(scale, dtype):
    plan = sinkhorn_plan((scale * costs(6, 6)).to(dtype), 1e-3, 20)
    assert plan.dtype == torch.float32
    assert torch.isfinite(plan).all()
    assert plan.sum().item() == pytest.approx(1, abs=1e-5)


def test_gradient_behind_a_detached_plan_is_that_of_the_regularized_minimum():
    """The envelope theorem, by differences of the minimum in double precision."""
    regularization, cost = 0.2, costs(3, 3).requires_grad_()
    (sinkhorn_plan(cost.detach(), regularization, 400) * cost).sum().backward()

    def minimum(values: np.ndarray) -> float:
        plan = scaled(values, regularization, 200)
        return float((plan * (values + regularization * np.log(plan))).sum())

    at, want = cost.detach().double().numpy(), np.empty((3, 3))
    for place in np.ndindex(3, 3):
        change = np.zeros((3, 3))
        change[place] = 1e-5
        want[place] = (minimum(at + change) - minimum(at - change)) / 2e-5
    np.testing.assert_allclose(cost.grad.numpy(), want, rtol=1e-3, atol=1e-6)


def test_permuted_columns_permute_the_plan():
    cost, order = costs(6, 6), torch.tensor([3, 0, 5, 1, 4, 2])
    plan = sinkhorn_plan(cost, 0.1, 100)
    torch.testing.assert_close(sinkhorn_plan(cost[:, order], 0.1, 100), plan[:, order])
