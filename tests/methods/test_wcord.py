"""WCoRD against numpy and scipy: both distances, the critic's Lipschitz bound, its memories."""

import copy

import numpy as np
import pytest
import torch
from offline_pairs import reached, teacher_net
from scipy.optimize import linear_sum_assignment
from torch import nn

from selfdistill.core import METHODS, ConfigError, trained_state
from selfdistill.methods.wcord import LipschitzEmbedding
from selfdistill.modules.memory import MemoryBank
from selfdistill.taps import Taps, Teacher

LABELS = torch.arange(40) % 5


def wcord(tiny_net, tiny_task, labels=LABELS, **keywords):
    student = Taps(tiny_net, example=tiny_task.example)
    teacher = Teacher(Taps(teacher_net(), example=tiny_task.example))
    torch.manual_seed(0)
    return METHODS["wcord"](student, teacher, tiny_task, labels, **keywords).train()


def train(method, batch, progress, steps: int, rate: float = 3e-3) -> list[float]:
    """Values of the global term, step by step."""
    optimizer, values = torch.optim.Adam(method.param_groups(), lr=rate), []
    for number in range(steps):
        moment = progress._replace(step=torch.tensor(number))
        step = method(batch, moment)
        optimizer.zero_grad()
        step.total.backward()
        optimizer.step()
        method.after_step(moment)
        values.append(step.losses["global"].item())
    return values


def vectors(method, inputs) -> list[np.ndarray]:
    """Pooled features of student and teacher."""
    with torch.no_grad():
        pooled = [taps.forward_pooled(inputs)[2] for taps in (method.student, method.teacher)]
    return [vector.double().numpy() for vector in pooled]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_global_term_equals_numpy(tiny_net, tiny_task, batch, progress):
    method = wcord(tiny_net, tiny_task, negatives_weight=0.7, num_negatives=9)
    train(method, batch, progress, 2)
    for _ in range(100):  # to the end, which one iteration a step follows
        method.embed_student.iterate()
        method.embed_teacher.iterate()
    step = method(batch, progress)
    negatives, want = method.negatives(batch.indices, progress).numpy(), 0.0
    layers = (method.embed_student, method.embed_teacher)
    banks = (method.memory_teacher, method.memory_student)
    sides = zip(("student", "teacher"), vectors(method, batch.inputs), layers, banks, strict=True)
    for side, pooled, layer, bank in sides:
        weight, rows = layer.weight.detach().double().numpy(), bank.rows.double().numpy()
        v = unit(pooled) @ weight.T / np.linalg.svd(weight)[1][0]
        positive = (v * rows[batch.indices.numpy()]).sum(1).mean()
        value = 0.7 * np.einsum("bd,bkd->bk", v, rows[negatives]).mean() - positive
        assert step.monitors[f"global/{side}"].item() == pytest.approx(value, abs=1e-5)
        want += value
    assert step.losses["global"].item() == pytest.approx(want, abs=2e-5)


def test_drawn_negatives_have_the_mean_of_the_other_classes(tiny_net, tiny_task, batch, progress):
    """The critic is linear in the rows, so the expectation is its score of their mean."""
    method = wcord(tiny_net, tiny_task)
    rows = method.memory_teacher.rows
    draws = [
        method.negatives(batch.indices, progress._replace(step=torch.tensor(step)))
        for step in range(100)
    ]
    drawn = rows[torch.cat(draws, 1)].mean(1)
    others = LABELS[batch.indices][:, None] != LABELS
    exact = others.float() @ rows / 32
    assert (drawn - exact).abs().max() < 0.01  # 3200 draws of numbers up to 0.15


@pytest.mark.parametrize("steps", [0, 5])
def test_embedding_is_lipschitz(steps, tiny_net, tiny_task, batch, progress):
    method = wcord(tiny_net, tiny_task)
    train(method, batch, progress, steps, rate=0.01)
    for layer in (method.embed_student, method.embed_teacher):
        x = unit(np.random.default_rng(0).normal(size=(50, layer.weight.shape[1])))
        with torch.no_grad():
            v = layer(3 * torch.tensor(x)).double().numpy()
        assert np.linalg.norm(v, axis=1).max() < 1.02
        moved = np.linalg.norm(v[1:] - v[:-1], axis=1)
        assert (moved < 1.02 * np.linalg.norm(x[1:] - x[:-1], axis=1)).all()


@pytest.mark.parametrize(("channels", "width"), [(12, 20), (20, 12), (7, 7)])
def test_norm_is_the_largest_singular_value(channels, width):
    torch.manual_seed(0)
    layer = LipschitzEmbedding(channels, width)

    def norm() -> float:
        return (layer.direction @ layer.weight.T).norm().item()

    assert norm() == pytest.approx(1, abs=1e-5)  # without any warm-up
    with torch.no_grad():
        layer.weight.add_(torch.randn(width, channels))
    for _ in range(200):
        layer.iterate()
    want = np.linalg.svd(layer.weight.detach().double().numpy())[1][0]
    assert norm() == pytest.approx(want, rel=1e-4)


def test_scale_of_the_layer_has_no_gradient():
    torch.manual_seed(0)
    layer = LipschitzEmbedding(6, 4)
    layer(torch.randn(5, 6)).square().sum().backward()
    along = (layer.weight.grad * layer.weight).sum()
    assert along.abs() < 1e-5 * layer.weight.grad.norm()


def test_feature_of_zero_has_a_finite_gradient():
    layer, x = LipschitzEmbedding(6, 4), torch.zeros(2, 6, requires_grad=True)
    layer(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() < 10


def test_best_critic_has_the_nuclear_norm_and_is_below_the_distance(tiny_net, tiny_task):
    """The nuclear norm of what the cross moments of pairs of one image and of two differ by.

    The polar factor of that matrix has it, and no other critic more. It is at most the distance
    between the two distributions of pairs, by scipy's assignment.
    """
    generator = np.random.default_rng(0)
    x, m = (unit(generator.normal(size=(6, 5))) for _ in range(2))
    method, layer = wcord(tiny_net, tiny_task, global_weight=0.0), LipschitzEmbedding(5, 5)
    memory = MemoryBank(6, 5)
    memory.rows.copy_(torch.tensor(m))
    first, second = np.nonzero(~np.eye(6, dtype=bool))
    rows = torch.cat([torch.arange(6)[:, None], torch.tensor(second).view(6, 5)], 1)

    def value(weight: np.ndarray) -> float:
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(weight))
            for _ in range(100):
                layer.iterate()
            return -method._contrast(memory, layer(torch.tensor(x)), rows).item()

    moments = m.T @ x / 6 - m[second].T @ x[first] / 30
    left, sizes, right = np.linalg.svd(moments)
    best = value(3 * left @ right)
    assert best == pytest.approx(sizes.sum(), rel=1e-5)
    for _ in range(10):
        assert value(left @ right + 0.3 * generator.normal(size=(5, 5))) < best
    same = np.repeat(np.arange(6), 5)  # as many pairs of one image as there are of two
    cost = np.linalg.norm(x[same][:, None] - x[first], axis=2)
    cost += np.linalg.norm(m[same][:, None] - m[second], axis=2)
    assert best < cost[linear_sum_assignment(cost)].mean()


@pytest.mark.parametrize("regularization", [0.1, 0.5])
def test_local_term_equals_numpy(regularization, tiny_net, tiny_task, batch, progress):
    method = wcord(
        tiny_net,
        tiny_task,
        sinkhorn_regularization=regularization,
        num_sinkhorn_iterations=300,
    )
    step = method(batch, progress)
    student, teacher = vectors(method, batch.inputs)
    weight, bias = (p.detach().double().numpy() for p in method.projection.parameters())
    cost = 1 - unit(student @ weight.T + bias) @ unit(teacher).T
    kernel, u = np.exp(-cost / regularization), np.ones(8)
    for _ in range(1000):
        v = 1 / 8 / (kernel.T @ u)
        u = 1 / 8 / (kernel @ v)
    plan = u[:, None] * kernel * v
    # not weighted: the weight is in the gradient of the student's features
    assert step.losses["local"].item() == pytest.approx((plan * cost).sum(), rel=1e-4)


def test_local_term_compares_sets(tiny_net, tiny_task, batch, progress):
    method = wcord(tiny_net, tiny_task, num_sinkhorn_iterations=200)
    generator = torch.Generator().manual_seed(3)
    student, teacher = (torch.rand(8, c, generator=generator) for c in (16, 24))
    value = method._transport_cost(student, teacher)
    order = torch.tensor([3, 7, 0, 5, 1, 6, 4, 2])
    torch.testing.assert_close(method._transport_cost(student, teacher[order]), value)
    torch.testing.assert_close(method._transport_cost(student, 5 * teacher), value)
    assert method._transport_cost(student, teacher.flip(1)) != value


def test_local_term_of_aligned_sets_is_zero(tiny_net, tiny_task):
    """With identity for a projection, and directions that are orthogonal."""
    method = wcord(tiny_net, tiny_task, sinkhorn_regularization=0.05)
    method.projection = nn.Linear(8, 8)
    with torch.no_grad():
        method.projection.weight.copy_(torch.eye(8))
        method.projection.bias.zero_()
    x = torch.eye(8) * torch.arange(1.0, 9)
    assert method._transport_cost(x, x[torch.randperm(8)]).item() < 1e-6


def test_where_gradients_go(tiny_net, tiny_task, batch, progress):
    method = wcord(tiny_net, tiny_task, soft_weight=0.5)
    losses = method(batch, progress).losses
    assert list(losses) == ["task", "soft", "local", "global"]
    trunk = {"stage1", "stage2", "stage3", "stage4"}
    parts = (method.embed_student, method.embed_teacher, method.projection)
    hit = {name: [bool(reached(loss, part)) for part in parts] for name, loss in losses.items()}
    nothing = [False] * 3
    assert hit == {
        "task": nothing,
        "soft": nothing,
        "local": [False, False, True],
        "global": [True, True, False],
    }
    for name in ("global", "local"):
        assert reached(losses[name], tiny_net) == trunk
    assert not any(p.requires_grad for p in method.teacher.parameters())


@pytest.mark.parametrize("term", ["global", "local"])
def test_weight_is_in_the_gradient_of_the_student(term, tiny_net, tiny_task, batch, progress):
    gradients = []
    for weight in (0.2, 0.4):
        method = wcord(copy.deepcopy(tiny_net), tiny_task, **{f"{term}_weight": weight})
        layer = method.embed_student if term == "global" else method.projection
        parameters = [method.student.network.stage1[0].weight, layer.weight]
        gradients.append(torch.autograd.grad(method(batch, progress).losses[term], parameters))
    (network, layer), (network_twice, layer_twice) = gradients
    torch.testing.assert_close(2 * network, network_twice)
    torch.testing.assert_close(layer, layer_twice)


def test_forward_changes_nothing_and_a_step_all_memories(tiny_net, tiny_task, batch, progress):
    method = wcord(tiny_net, tiny_task)
    tiny_net.eval()  # batch norm has statistics of its own
    with torch.no_grad():
        for layer in (method.embed_student, method.embed_teacher):
            layer.weight.mul_(1 + torch.rand_like(layer.weight))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method(batch, progress)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    (index, v_student, _), rows = method.pending[0], before["memory_student.rows"]
    assert torch.equal(index, batch.indices)
    torch.testing.assert_close(v_student.norm(dim=1), torch.ones(8))
    method.after_step(progress)
    assert method.pending == []
    changed = {n for n, value in method.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {
        f"{name}_{side}.{part}"
        for name, part in (("memory", "rows"), ("embed", "direction"))
        for side in ("student", "teacher")
    }
    want = rows[index] + v_student
    moved = method.memory_student.rows
    torch.testing.assert_close(moved[index], want / want.norm(dim=1, keepdim=True))
    assert torch.equal(moved[8:], rows[8:])


def test_evaluation_leaves_no_trace(tiny_net, tiny_task, batch, progress):
    method = wcord(tiny_net, tiny_task).eval()
    before = copy.deepcopy(method.state_dict())
    method(batch, progress)
    method.after_step(progress)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


@pytest.mark.slow
def test_global_term_learns_to_tell_images(tiny_net, tiny_task, batch, progress):
    method = wcord(tiny_net, tiny_task, LABELS[:8], embedding_width=16)
    values = train(method, batch, progress, 60, rate=0.01)
    assert abs(values[0]) < 0.1  # rows of noise
    assert values[-1] < -0.3  # the pooled features of a random teacher differ little


def test_what_is_left_out_is_not_there(tiny_net, tiny_task, batch, progress):
    local = wcord(tiny_net, tiny_task, global_weight=0.0)
    assert not [name for name in trained_state(local) if "memory" in name or "embed" in name]
    assert list(local(batch, progress).losses) == ["task", "local"]
    local.after_step(progress)
    contrast = wcord(tiny_net, tiny_task, local_weight=0.0)
    assert not hasattr(contrast, "projection")
    assert list(contrast(batch, progress).losses) == ["task", "global"]
    soft = wcord(tiny_net, tiny_task, global_weight=0.0, local_weight=0.0, soft_weight=1.0)
    assert list(soft(batch, progress).losses) == ["task", "soft"]
    assert soft.needs.teacher_scores
    assert not local.needs.teacher_scores


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"global_weight": 0.0, "local_weight": 0.0}, "method 'ce'; set one"),
        ({"num_negatives": 0}, "1 negative or more, not num_negatives=0"),
        ({"labels": torch.zeros(9, dtype=torch.int64)}, "two classes or more"),
        ({"sinkhorn_regularization": 0.0}, "sinkhorn_regularization above 0, not 0.0"),
        ({"num_sinkhorn_iterations": 0}, "1 or more, not 0"),
    ],
)
def test_what_it_refuses(keywords, message, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=message):
        wcord(tiny_net, tiny_task, **keywords)


def test_needs():
    assert METHODS["wcord"].needs.image_labels
    assert METHODS["wcord"].kind == "offline"
