"""Nodes of graphs: losses against scipy, labels that are not known, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax
from scipy.stats import entropy

from selfdistill.core import ConfigError, DataError
from selfdistill.tasks import LOOP_TASKS, TASKS, Nodes
from selfdistill.tasks.nodes import OUTSIDE, UNLABELED

N, K = 6, 3
SCORES = torch.randn(N, K, generator=torch.Generator().manual_seed(0))
OTHERS = torch.randn(N, K, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 2, UNLABELED, 1, OUTSIDE, 1])
SEVERAL = torch.tensor([[0.0, 1, 1], [1, -1, 0], [-1, -1, -1], [0, 0, 0], [-2, -2, -2], [1, 1, 1]])


def nodes(*, multilabel: bool = False, classes: int = K, **options) -> Nodes:
    graph = SimpleNamespace(edge_index=torch.empty(2, 0, dtype=torch.int64), num_nodes=N)
    if multilabel:
        graph.y = torch.zeros(N, K)
    return Nodes([str(i) for i in range(classes)], graph, **options)


def test_no_command_offers_it():
    assert "nodes" not in TASKS
    assert LOOP_TASKS["nodes"] is Nodes


def test_loss_of_one_class_is_scipys_over_the_known():
    logs = log_softmax(SCORES.double().numpy(), axis=1)
    wanted = -np.mean([logs[i, LABELS[i]] for i in (0, 1, 3, 5)])
    assert nodes().loss(SCORES, LABELS).item() == pytest.approx(wanted, rel=1e-5)
    smooth = np.mean([-0.8 * logs[i, LABELS[i]] - 0.2 * logs[i].mean() for i in (0, 1, 3, 5)])
    smoothed = nodes(label_smoothing=0.2).loss(SCORES, LABELS)
    assert smoothed.item() == pytest.approx(smooth, rel=1e-5)


def test_loss_of_several_labels_is_scipys_over_the_known():
    p, y = expit(SCORES.double().numpy()), SEVERAL.numpy()
    each = -np.where(y == 1, np.log(p), np.log(1 - p))
    task = nodes(multilabel=True)
    assert task.loss(SCORES, SEVERAL).item() == pytest.approx(each[y >= 0].mean(), rel=1e-5)


@pytest.mark.parametrize("multilabel", [False, True])
def test_without_any_label_loss_and_gradient_are_zero(multilabel):
    scores = SCORES.clone().requires_grad_()
    targets = torch.full((N, K), -1.0) if multilabel else torch.full((N,), -1)
    loss = nodes(multilabel=multilabel).loss(scores, targets)
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.abs().max() == 0


def test_soft_loss_counts_all_nodes_but_those_outside():
    p, q = (z.div(2).double().softmax(1).numpy() for z in (SCORES, OTHERS))
    each, task = entropy(q, p, axis=1), nodes()
    assert task.soft_loss(SCORES, OTHERS, 2.0).item() == pytest.approx(4 * each.mean(), rel=1e-4)
    masked = task.soft_loss(SCORES, OTHERS, 2.0, mask=task.valid_mask(LABELS))
    assert masked.item() == pytest.approx(4 * np.delete(each, 4).mean(), rel=1e-4)


def test_soft_loss_of_several_labels_takes_each_by_itself():
    p, q = (expit(z.double().numpy() / 2) for z in (SCORES, OTHERS))
    each = entropy(np.stack([q, 1 - q]), np.stack([p, 1 - p]))  # (N, K)
    task = nodes(multilabel=True)
    assert task.soft_loss(SCORES, OTHERS, 2.0).item() == pytest.approx(4 * each.mean(), rel=1e-4)
    masked = task.soft_loss(SCORES, OTHERS, 2.0, mask=task.valid_mask(SEVERAL))
    assert masked.item() == pytest.approx(4 * np.delete(each, 4, 0).mean(), rel=1e-4)


def test_metrics_count_the_known():
    metric = nodes().metric()
    metric.update(10 * torch.eye(3)[[0, 1, 2, 1, 0, 1]], LABELS)
    assert metric.compute()["accuracy"].item() == pytest.approx(3 / 4)
    metric = nodes(multilabel=True).metric()
    metric.update(torch.full((N, K), 0.2), SEVERAL)  # a score above 0, no probability
    true, known = int((SEVERAL == 1).sum()), int((SEVERAL >= 0).sum())
    assert metric.compute()["micro_f1"].item() == pytest.approx(2 * true / (true + known))


@pytest.mark.parametrize(
    ("multilabel", "targets", "said"),
    [
        (False, LABELS + 1, "these go from -1 to 3"),
        (False, LABELS - 1, "these go from -3 to 1"),
        (False, LABELS[:4], r"these are \(4,\), int64"),
        (False, LABELS[:, None], r"these are \(6, 1\), int64"),
        (False, LABELS.int(), r"these are \(6,\), int32"),
        (False, SEVERAL, r"\(several labels a node are trained where the example's y is floating"),
        (False, LABELS.tolist(), "in a tensor, not list"),
        (True, LABELS, r"these are \(6,\), int64"),
        (True, 2 * SEVERAL.clamp(min=0), "these go from 0 to 2"),
        (True, SEVERAL.where(SEVERAL > 0, torch.nan), "these go from nan to nan"),
    ],
)
def test_other_labels_are_refused(multilabel, targets, said):
    with pytest.raises(ConfigError, match=said):
        nodes(multilabel=multilabel).check_targets(targets, N)


def test_its_own_labels_are_taken():
    nodes().check_targets(LABELS, N)
    nodes(multilabel=True).check_targets(SEVERAL, N)
    nodes().check_targets(LABELS + 9, N, values=False)
    nodes().check_targets(LABELS[:0], 0)


def test_examples_without_edges_and_single_classes_are_refused():
    with pytest.raises(ConfigError, match="the edges"):
        Nodes("ab", torch.zeros(2, 3, 8, 8))
    with pytest.raises(DataError, match="2 classes or more; there is 1"):
        nodes(classes=1)
    assert nodes(multilabel=True, classes=1).primary_metric == "micro_f1"


def test_a_head_scores_each_node():
    assert nodes().head(5)(torch.zeros(N, 5, 1, 1)).shape == (N, K)
