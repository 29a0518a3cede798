"""A graph of two blocks, and networks of its nodes."""

import warnings

import torch
from torch import Tensor, nn

with warnings.catch_warnings():  # it compiles a class by torch.jit.script as it is imported
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric.data import Batch as GraphBatch
    from torch_geometric.data import Data
    from torch_geometric.nn import GCN, GATConv, GCNConv

__all__ = ["GCN", "GraphBatch", "network", "teacher", "two_blocks"]


class NodeNetwork(nn.Module):
    """Two layers of PyTorch Geometric, called with the graph."""

    def __init__(self, kind: type[nn.Module] = GCNConv, width: int = 8, classes: int = 2) -> None:
        super().__init__()
        self.hidden, self.norm = kind(4, width), nn.BatchNorm1d(width)
        self.last = kind(width, classes)

    def forward(self, graph: Data) -> Tensor:
        h = self.norm(self.hidden(graph.x, graph.edge_index)).relu()
        return self.last(h, graph.edge_index)


def two_blocks(seed: int = 0, nodes: int = 60, *, multilabel: bool = False) -> Data:
    """Nodes that are joined more often within their block; the last one is isolated."""
    generator = torch.Generator().manual_seed(seed)
    block = torch.arange(nodes) % 2
    within = block[:, None] == block
    joined = torch.rand(nodes, nodes, generator=generator) < torch.where(within, 0.2, 0.02)
    joined = joined.triu(1)
    joined[:, -1] = False
    edges = (joined | joined.T).nonzero().T.contiguous()
    x = torch.randn(nodes, 4, generator=generator)
    x[:, 0] += 1.5 * block
    y = torch.stack([block, 1 - block], 1).float() if multilabel else block
    return Data(x=x, edge_index=edges, y=y)


def network(seed: int = 0, kind: type[nn.Module] = GCNConv, width: int = 8) -> NodeNetwork:
    torch.manual_seed(seed)
    return NodeNetwork(kind, width)


def teacher() -> NodeNetwork:
    return network(7, GATConv, 16)
