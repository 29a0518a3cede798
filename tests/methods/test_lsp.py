"""LSP on graphs of PyTorch Geometric, against scipy, and what it asks of task and network."""

import copy
import functools

import numpy as np
import pytest
import torch
from made_graphs import GCN, GraphBatch, network, teacher, two_blocks
from scipy.special import log_softmax
from scipy.stats import entropy

import selfdistill
from selfdistill.core import Batch, ConfigError
from selfdistill.integrations.loss import DistillationLoss
from selfdistill.recipe.schema import parse
from selfdistill.taps import Taps

GRAPH = two_blocks()
TAPS = {"taps": "hidden", "teacher_taps": "hidden"}
VARIANTS = {
    "defaults": {},
    "euclidean": {"kernel": "euclidean"},
    "linear": {"kernel": "linear"},
    "polynomial": {"kernel": "polynomial", "kernel_offset": 1.0},
    "public code": {"kernel": "laplacian", "direction": "teacher_student", "structure_weight": 1.0},
    "soft": {"soft_weight": 1.0},
}


def wrapped(
    method: str = "lsp", student: torch.nn.Module | None = None, example=GRAPH, **keys
) -> DistillationLoss:
    if method != "ce":
        keys = {"teacher": teacher(), **keys}
    if "lsp" in method:
        keys = TAPS | keys
    student = student or network()
    return selfdistill.wrap(student, method, example=example, classes=2, task="nodes", **keys)


def some_labels(seen: int = 8) -> torch.Tensor:
    return torch.where(torch.arange(60) < seen, GRAPH.y, -1)


def train(criterion: DistillationLoss, graph, labels, count: int, optimizer=None):
    optimizer = optimizer or torch.optim.Adam(criterion.param_groups(0.02))
    for _ in range(count):
        optimizer.zero_grad()
        criterion(graph, labels).backward()
        optimizer.step()
    return criterion.method.predictors()["student"]


def blocks_and_labels(multilabel: bool):
    """A graph, the labels of a few of its nodes, and those of the others."""
    graph = two_blocks(1, multilabel=multilabel)
    seen = torch.arange(60) < 8
    seen = seen[:, None] if multilabel else seen
    return graph, torch.where(seen, graph.y, -1), torch.where(seen, -1, graph.y)


@functools.cache
def trained_teacher(multilabel: bool) -> torch.nn.Module:
    graph, labels, _ = blocks_and_labels(multilabel)
    return train(wrapped("ce", teacher(), graph), graph, labels, 20)


@pytest.mark.parametrize("direction", ["student_teacher", "teacher_student"])
def test_structure_equals_scipy(direction):
    criterion = wrapped(direction=direction, kernel="linear", structure_weight=3.0).eval()
    criterion(GRAPH, GRAPH.y)
    networks = (criterion.method.student, criterion.method.teacher)
    with torch.no_grad():
        both = [n.forward_features(GRAPH)[1]["hidden"].flatten(1).double() for n in networks]
    source, target = GRAPH.edge_index.numpy()
    divergences = []
    for node in np.unique(target):
        neighbors = source[target == node]
        shares = [np.exp(log_softmax((z[neighbors] @ z[node]).numpy())) for z in both]
        divergences.append(entropy(*(shares if direction == "student_teacher" else shares[::-1])))
    wanted = 3 * sum(divergences) / 60
    assert criterion.last.losses["structure"].item() == pytest.approx(wanted, rel=1e-4)
    assert criterion.last.losses.keys() == {"task", "structure"}


def test_equal_networks_agree():
    student = network()
    criterion = wrapped(student=student, teacher=copy.deepcopy(student)).eval()
    criterion(GRAPH, GRAPH.y)
    assert criterion.last.losses["structure"].item() == 0


def test_structure_reaches_the_layers_up_to_its_tap():
    criterion = wrapped(kernel="linear")
    batch = Batch(GRAPH, GRAPH.y, torch.arange(60))
    criterion.method(batch, criterion._progress()).losses["structure"].backward()
    student, frozen = criterion.method.student.network, criterion.method.teacher
    hit = {n.split(".")[0] for n, p in student.named_parameters() if p.grad is not None}
    assert hit == {"hidden"}
    assert student.hidden.lin.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in frozen.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_trains_the_student_alone(name):
    options = VARIANTS[name]
    criterion = wrapped(**options).train()
    kept = copy.deepcopy(criterion.method.teacher.state_dict())
    criterion(GRAPH, some_labels()).backward()
    wanted = {"task", "structure"} | ({"soft"} if "soft_weight" in options else set())
    assert criterion.last.losses.keys() == wanted
    trained = {n: p for n, p in criterion.named_parameters() if p.requires_grad}
    own_names = {n.removeprefix("method.student.network.") for n in trained}
    assert own_names == {n for n, _ in network().named_parameters()}
    assert all(torch.isfinite(p.grad).all() for p in trained.values())
    # nothing can feel the bias in front of a norm
    assert all(p.grad.abs().max() > 0 for n, p in trained.items() if not n.endswith("hidden.bias"))
    grouped = [p for group in criterion.param_groups(0.1) for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in trained.values()}
    for key, tensor in criterion.method.teacher.state_dict().items():
        assert torch.equal(tensor, kept[key])


def test_without_weight_it_is_the_supervised_loss():
    plain, lsp = wrapped("ce"), wrapped(structure_weight=0.0)
    assert torch.equal(plain(GRAPH, GRAPH.y), lsp(GRAPH, GRAPH.y))
    assert lsp.last.losses.keys() == {"task"}


@pytest.mark.parametrize("method", ["ce", "kd", "lsp", "kd+lsp"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_training_finds_the_blocks(method, multilabel):
    graph, labels, others = blocks_and_labels(multilabel)
    taught = {} if method == "ce" else {"teacher": copy.deepcopy(trained_teacher(multilabel))}
    criterion = wrapped(method, example=graph, **taught)
    train(criterion, graph, labels, 20)
    criterion.eval()
    metric = criterion.task.metric()
    metric.update(criterion.predict(graph)["student"].detach(), others)
    (score,) = metric.compute().values()
    assert score > 0.85


def test_a_run_goes_on_where_it_was_saved():
    one = wrapped()
    optimizer = torch.optim.Adam(one.param_groups(0.01))
    train(one, GRAPH, some_labels(), 2, optimizer)
    saved = copy.deepcopy((one.state_dict(), optimizer.state_dict()))
    train(one, GRAPH, some_labels(), 2, optimizer)
    other = wrapped(student=network(3))
    again = torch.optim.Adam(other.param_groups(0.01))
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    train(other, GRAPH, some_labels(), 2, again)
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_batch_of_graphs_is_their_mean_by_nodes():
    graphs = [two_blocks(2), two_blocks(3, nodes=30)]
    criterion = wrapped(kernel="linear").eval()
    terms = []
    for graph in (*graphs, GraphBatch.from_data_list(graphs)):
        criterion(graph, graph.y)
        terms.append(criterion.last.losses["structure"].item())
    assert terms[2] == pytest.approx((60 * terms[0] + 30 * terms[1]) / 90, rel=1e-4)


def test_a_graph_without_edges_and_autocast_are_finite():
    bare = GRAPH.clone()
    bare.edge_index = torch.empty(2, 0, dtype=torch.int64)
    criterion = wrapped()
    for graph in (bare, GRAPH):
        with torch.autocast("cpu", torch.bfloat16):
            loss = criterion(graph, some_labels())
        loss.backward()
        assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in criterion.parameters() if p.requires_grad)


def test_kd_counts_nodes_without_a_label_and_not_those_outside():
    criterion = wrapped("kd").eval()
    soft = {}
    for other in (-1, -2):
        criterion(GRAPH, torch.where(torch.arange(60) < 8, GRAPH.y, other))
        soft[other] = criterion.last.losses["soft"].item()
    networks = (criterion.method.student, criterion.method.teacher)
    with torch.no_grad():
        p, q = (n(GRAPH).div(4).double().softmax(1).numpy() for n in networks)
    each = entropy(q, p, axis=1)
    assert soft[-1] == pytest.approx(0.9 * 16 * each.mean(), rel=1e-3)
    assert soft[-2] == pytest.approx(0.9 * 16 * each[:8].mean(), rel=1e-3)


def test_features_of_nodes_are_maps_of_one_place():
    taps = Taps(network(), ["hidden"], example=GRAPH).eval()
    outputs, features, pooled = taps.forward_pooled(GRAPH)
    assert taps.shapes == {"hidden": (8, 1, 1)}
    assert features["hidden"].shape == (60, 8, 1, 1)
    assert torch.equal(features["hidden"].flatten(1), pooled)
    assert torch.equal(outputs, network().eval()(GRAPH))
    assert torch.equal(taps.forward_until("hidden", GRAPH), features["hidden"])


class Graphs(torch.nn.Module):
    """A network of PyTorch Geometric that is called with the graph."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.gnn = GCN(4, 8, layers, 2)

    def forward(self, graph):
        return self.gnn(graph.x, graph.edge_index)


def test_automatic_taps_are_hidden_layers():
    taps = Taps(Graphs(4), "auto", example=GRAPH)
    # what stands for a norm there passes the third layer on
    assert taps.names == ("gnn.convs.0", "gnn.convs.1", "gnn.norms.2")
    with pytest.raises(ConfigError, match=r"give the taps by name \(it has: .*gnn\.convs\.0"):
        Taps(Graphs(2), "auto", example=GRAPH)


def test_what_cannot_be_is_refused_in_a_sentence():
    with pytest.raises(ConfigError, match=r"wrap it in a module whose forward\(graph\)"):
        wrapped(student=GCN(4, 8, 2, 2))
    with pytest.raises(ConfigError, match="2 classes ask for"):
        wrapped(student=torch.nn.Sequential(network(), torch.nn.Linear(2, 3)), taps="0.hidden")
    with pytest.raises(ConfigError, match="tap=2 is counted from the deepest"):
        wrapped(tap=2)
    with pytest.raises(ConfigError, match="kernel_width = 0 must be above 0"):
        wrapped(kernel_width=0.0)
    with pytest.raises(ConfigError, match="kernel_degree=0"):
        wrapped(kernel_degree=0)
    with pytest.raises(ConfigError, match="method 'at' works on images, and nodes is of graphs"):
        wrapped("at")
    with pytest.raises(ConfigError, match="graphs want task='nodes'"):
        selfdistill.wrap(network(), "ce", example=GRAPH, classes=2)
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    with pytest.raises(ConfigError, match="compares neighbors in a graph, and classification"):
        selfdistill.wrap(flat, "lsp", example=torch.zeros(2, 3, 8, 8), classes=2)
    with pytest.raises(ConfigError, match="there is no task 'nodes'"):
        parse({"method": "lsp", "task": "nodes"})
