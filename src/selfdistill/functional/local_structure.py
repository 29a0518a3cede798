"""Local structure of a graph: how similar each node's features are to those of its neighbors."""

from collections.abc import Callable

import torch
from torch import Tensor

KERNELS: dict[str, Callable[[Tensor, Tensor, float, float, int], Tensor]] = {
    "rbf": lambda x, y, width, offset, degree: (-_squared_distance(x, y) / (2 * width)).exp(),
    "euclidean": lambda x, y, width, offset, degree: _squared_distance(x, y),
    "linear": lambda x, y, width, offset, degree: (x * y).sum(1),
    "polynomial": lambda x, y, width, offset, degree: ((x * y).sum(1) + offset) ** degree,
    "laplacian": lambda x, y, width, offset, degree: (-(x - y).abs().sum(1) / width).exp(),
}
"""Similarities of rows (E, C) by name."""


def log_local_structure(
    features: Tensor,
    edges: Tensor,
    kernel: str,
    *,
    width: float = 100.0,
    offset: float = 0.0,
    degree: int = 2,
) -> Tensor:
    r"""Logarithm of each edge's share in the local structure of the node that it leads to.

    .. math:: LS_{ij} = \frac{\exp SIM(h_i, h_j)}{\sum_{k \in N(i)} \exp SIM(h_i, h_k)}

    where :math:`N(i)` are the nodes with an edge to i. Computed in fp32.

    Args:
        features: of the nodes, (N, C).
        edges: (2, E) int64, from the nodes j of the first row to the nodes i of the second.
        kernel: the similarity, a key of `KERNELS`.
        width: :math:`\sigma` > 0 of "rbf" and "laplacian".
        offset: c of "polynomial".
        degree: d of "polynomial".

    Returns:
        (E,), in the order of the edges.
    """
    neighbors, nodes = edges
    h = features.float()
    with torch.autocast(h.device.type, enabled=False):
        similarity = KERNELS[kernel](h[nodes], h[neighbors], width, offset, degree)
    return log_neighbor_softmax(similarity, nodes, len(features))


def log_neighbor_softmax(values: Tensor, nodes: Tensor, num_nodes: int) -> Tensor:
    """Log-softmax of values (E,) over those that have the same node; a node may have none."""
    lowest = values.new_full((num_nodes,), -torch.inf)
    highest = lowest.scatter_reduce(0, nodes, values.detach(), "amax")  # for exponentials ≤ 1
    shifted = values - highest[nodes]
    total = values.new_zeros(num_nodes).index_add(0, nodes, shifted.exp())
    return shifted - total[nodes].log()


def local_structure_divergence(first: Tensor, second: Tensor, num_nodes: int) -> Tensor:
    """KL(first ‖ second) of two local structures, averaged over all nodes of the graph.

    A node with one neighbor or none contributes 0.

    Args:
        first, second: logarithms of the shares, (E,), of the same edges.
        num_nodes: N, isolated nodes included.
    """
    return (first.exp() * (first - second)).sum() / num_nodes


def _squared_distance(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().sum(1)
