"""Local structures against scipy, a worked star, and what they are blind to."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import entropy

from selfdistill.functional.local_structure import (
    KERNELS,
    local_structure_divergence,
    log_local_structure,
    log_neighbor_softmax,
)

STAR = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
TO_CENTER = torch.tensor([[1, 2], [0, 0]])
NO_EDGES, SINGLE = torch.empty(2, 0, dtype=torch.int64), torch.tensor([[1, 0], [0, 2]])
OPTIONS = {"width": 3.0, "offset": 0.5, "degree": 3}
BY_NUMPY = {
    "rbf": lambda x, y: np.exp(-((x - y) ** 2).sum() / 6),
    "euclidean": lambda x, y: ((x - y) ** 2).sum(),
    "linear": np.dot,
    "polynomial": lambda x, y: (np.dot(x, y) + 0.5) ** 3,
    "laplacian": lambda x, y: np.exp(-np.abs(x - y).sum() / 3),
}


def graph(seed: int, nodes: int = 9, edges: int = 24) -> torch.Tensor:
    """Edges among all nodes but the last two: to the last there is none, to the one before one."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(nodes - 2, (2, edges), generator=generator)
    return torch.cat([drawn, torch.tensor([[0], [nodes - 2]])], 1)


def features(seed: int, width: int = 4, nodes: int = 9) -> torch.Tensor:
    return torch.randn(nodes, width, generator=torch.Generator().manual_seed(seed))


def by_scipy(x: np.ndarray, edges: np.ndarray, kernel: str) -> dict[int, np.ndarray]:
    """{node: shares of its neighbors}, in the order of the edges."""
    shares = {}
    for node in set(edges[1]):
        neighbors = edges[0][edges[1] == node]
        similar = [BY_NUMPY[kernel](x[node], x[neighbor]) for neighbor in neighbors]
        shares[node] = np.exp(log_softmax(similar))
    return shares


def test_a_worked_star():
    shares = log_local_structure(STAR, TO_CENTER, "rbf", width=1.0)
    assert shares.exp().tolist() == pytest.approx([0.615667, 0.384333], abs=1e-6)
    uniform = torch.full((2,), 0.5).log()
    first = local_structure_divergence(uniform, shares, 1).item()
    second = local_structure_divergence(shares, uniform, 1).item()
    assert first == pytest.approx(0.0275001, abs=1e-6)
    assert second == pytest.approx(0.0270015, abs=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_equal_to_scipy_in_both_directions(kernel):
    edges, x, y = graph(0), 0.5 * features(1), 0.5 * features(2, width=6)
    both = [log_local_structure(z, edges, kernel, **OPTIONS) for z in (x, y)]
    ours, others = (by_scipy(z.double().numpy(), edges.numpy(), kernel) for z in (x, y))
    for pair, wanted in (
        (both, [entropy(ours[n], others[n]) for n in ours]),
        (both[::-1], [entropy(others[n], ours[n]) for n in ours]),
    ):
        got = local_structure_divergence(*pair, len(x)).item()
        assert got == pytest.approx(sum(wanted) / 9, rel=1e-4)
    node = int(edges[1, 0])
    of_node = both[0][edges[1] == node].exp()
    np.testing.assert_allclose(of_node, ours[node], rtol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_blind_to_the_numbers_of_the_nodes_and_the_order_of_the_edges(kernel):
    edges, x, y = graph(3), features(4), features(5)
    generator = torch.Generator().manual_seed(6)
    order = torch.randperm(9, generator=generator)
    number = torch.empty_like(order)
    number[order] = torch.arange(9)
    shuffled = number[edges][:, torch.randperm(edges.shape[1], generator=generator)]

    def divergence(a: torch.Tensor, b: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        pair = (log_local_structure(z, e, kernel, **OPTIONS) for z in (a, b))
        return local_structure_divergence(*pair, 9)

    torch.testing.assert_close(divergence(x[order], y[order], shuffled), divergence(x, y, edges))


def test_shares_of_each_node_add_up_to_one():
    edges = graph(7)
    values = 100 * torch.randn(edges.shape[1], generator=torch.Generator().manual_seed(8))
    shares = log_neighbor_softmax(values, edges[1], 9).exp()
    total = torch.zeros(9).index_add(0, edges[1], shares)
    reached = edges[1].unique()
    torch.testing.assert_close(total[reached], torch.ones(len(reached)))
    assert total[8] == 0  # nobody leads there


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("edges", [NO_EDGES, SINGLE], ids=["none", "single"])
def test_nodes_with_one_neighbor_or_none_add_nothing(kernel, edges):
    x = features(9).requires_grad_()
    pair = [log_local_structure(z, edges, kernel) for z in (x, features(10))]
    divergence = local_structure_divergence(*pair, 9)
    divergence.backward()
    assert divergence.item() == 0
    assert x.grad.abs().max() == 0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_finite_in_bf16_and_far_from_one(kernel, scale):
    x = (scale * features(11)).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        pair = [log_local_structure(z, graph(12), kernel) for z in (x, features(13))]
        divergence = local_structure_divergence(*pair, 9)
    divergence.backward()
    assert divergence.dtype == torch.float32
    assert torch.isfinite(divergence)
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradient_is_that_of_finite_differences(kernel):
    # computed in fp32, so the step and the tolerance are wide
    edges, reference = graph(14), log_local_structure(features(15), graph(14), kernel, **OPTIONS)
    x, direction = 0.3 * features(16), features(17)

    def value(step: float) -> float:
        shares = log_local_structure(x + step * direction, edges, kernel, **OPTIONS)
        return local_structure_divergence(shares, reference, 9).item()

    leaf = x.clone().requires_grad_()
    shares = log_local_structure(leaf, edges, kernel, **OPTIONS)
    local_structure_divergence(shares, reference, 9).backward()
    slope = (value(1e-2) - value(-1e-2)) / 2e-2
    assert (leaf.grad * direction).sum().item() == pytest.approx(slope, rel=2e-2, abs=1e-4)
