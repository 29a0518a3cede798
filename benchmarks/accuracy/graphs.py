"""LSP and KD on Cora and Citeseer, from a GAT to a smaller GCN, on the Planetoid splits.

    uv run python benchmarks/accuracy/graphs.py --data DIRECTORY

DIRECTORY holds `cora.npz` and `citeseer.npz`: `indptr`, `indices` and `shape` of the binary
features as CSR, `edges` (E, 2) in one direction, `y`, and the nodes of `train`, `val` and `test`.
Features are divided by their sum. All rows share student, recipe (full batch, Adam) and seeds; the
teacher is a GAT trained by `ce` with the same seed, and every method has its defaults. A row's
figures are those of the last epoch; nothing is chosen on the validation nodes, which are unlabeled
in training as the test nodes are. Two results: mean and standard deviation of the test accuracy,
and paired differences by seed with their 95 % t interval.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import report
from seeds import interval

import selfdistill

SETS = ("cora", "citeseer")
ROWS = ("ce", "kd", "lsp")
LAYER = {"taps": "network.convs.0", "teacher_taps": "network.convs.0"}
Scores = dict[str, list[float]]


class NodeClassifier(nn.Module):
    """A network of PyTorch Geometric that is called with the graph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, graph: Data) -> Tensor:
        scores: Tensor = self.network(graph.x, graph.edge_index)
        return scores


def read(path: Path) -> Data:
    """The graph, with `train` and `test`, which nodes belong to these parts."""
    with np.load(path) as arrays:
        indptr, columns = arrays["indptr"], arrays["indices"].astype(np.int64)
        x = torch.zeros(*arrays["shape"].tolist())
        x[torch.from_numpy(np.repeat(np.arange(len(x)), np.diff(indptr))), columns] = 1
        one_way = torch.from_numpy(arrays["edges"].astype(np.int64)).T
        y = torch.from_numpy(arrays["y"].astype(np.int64))
        nodes = {
            part: torch.from_numpy(arrays[part].astype(np.int64)) for part in ("train", "test")
        }
    parts = {part: torch.zeros(len(y), dtype=torch.bool) for part in nodes}
    for part, chosen in nodes.items():
        parts[part][chosen] = True
    edges = torch.cat([one_way, one_way.flip(0)], 1)
    return Data(x=x / x.sum(1, keepdim=True).clamp(min=1), edge_index=edges, y=y, **parts)


def trained(
    graph: Data, network: nn.Module, method: str, args: argparse.Namespace, **keys: Any
) -> float:
    """Train a network in place; its test accuracy after the last epoch, in percent."""
    classes = int(graph.y.max()) + 1
    criterion = selfdistill.wrap(
        network, method, example=graph, classes=classes, task="nodes", **keys
    )
    optimizer = torch.optim.Adam(criterion.param_groups(args.lr), weight_decay=args.weight_decay)
    labels = torch.where(graph.train, graph.y, -1)
    for _ in range(args.epochs):
        criterion.train()(graph, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    metric = criterion.task.metric()
    with torch.no_grad():
        scores = criterion.eval().predict(graph)["student"]
    metric.update(scores, torch.where(graph.test, graph.y, -1))
    return 100 * float(metric.compute()["accuracy"])


def scores_of(graph: Data, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """{row: test accuracy} of one seed, the teacher's among them."""
    inputs, classes = graph.num_node_features, int(graph.y.max()) + 1
    torch.manual_seed(seed)
    # eight heads of eight, as in GAT's paper; the student has a quarter of that width
    teacher = NodeClassifier(GAT(inputs, 64, 2, classes, heads=8, dropout=0.6))
    found = {"teacher": trained(graph, teacher, "ce", args)}
    for row in ROWS:
        torch.manual_seed(seed)
        student = NodeClassifier(GCN(inputs, 16, 2, classes, dropout=0.5))
        keys: dict[str, Any] = {} if row == "ce" else {"teacher": teacher}
        keys |= LAYER if row == "lsp" else {}
        found[row] = trained(graph, student, row, args, **keys)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--name", default="accuracy-graphs", help="results/NAME.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table, paired = [], []
    for name in SETS:
        graph = read(args.data / f"{name}.npz")
        seeds = [scores_of(graph, seed, args) for seed in args.seeds]
        by_row: Scores = {row: [found[row] for found in seeds] for row in seeds[0]}
        for row, values in by_row.items():
            about = {"data": name, "row": row, "n": len(values)}
            spread = {
                "mean": round(statistics.mean(values), 2),
                "std": round(statistics.stdev(values), 2),
            }
            table.append({**about, **spread, "values": " ".join(f"{v:.1f}" for v in values)})
        for base in ("ce", "kd"):
            for row in ROWS[ROWS.index(base) + 1 :]:
                diffs = [a - b for a, b in zip(by_row[row], by_row[base], strict=True)]
                about = {"data": name, "difference": f"{row} - {base}", "split": "test"}
                paired.append({**about, **interval(diffs, 2)})
        print(name, by_row, flush=True)
    report(args.name, table, paired)


if __name__ == "__main__":
    main()
