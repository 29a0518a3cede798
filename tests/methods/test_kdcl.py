"""Collaborative learning: the four targets against scipy, and the weights from held-out images."""

import copy
import multiprocessing

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, rel_entr, softmax
from torch import nn

from selfdistill.core import METHODS, Batch, ConfigError, Needs, options
from selfdistill.methods.kdcl import (
    least_squares_weights,
    lowest_loss_network,
    optimal_mixture,
    project_to_simplex,
    weighted_sum,
)
from selfdistill.tasks import Classification

TARGETS = ["naive", "linear", "minlogit", "general"]
FIRST, SECOND = torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([[1.0, -1.0, 0.0]])
LABEL = torch.tensor([0])


class Says(nn.Module):
    """A network that says the same of every batch."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, x):
        return self.logits


def speakers(logits, labels, **keywords):
    """Collaborative learning of networks that say these logits, and a batch for it."""
    task = Classification("abc", torch.zeros(2, 3, 4, 4))
    student, *peers = map(Says, logits)
    images = torch.zeros(len(labels), 3, 4, 4)
    views = (images,) * len(peers)
    method = METHODS["kdcl"](student, peers, task, **keywords)
    return method, Batch(images, labels, torch.arange(len(labels)), views)


def others_of(net, count=1):
    """Networks like this one, with weights of their own."""
    peers = [copy.deepcopy(net) for _ in range(count)]
    for i, peer in enumerate(peers):
        torch.manual_seed(10 + i)
        for module in peer.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()
    return peers


def seen_by(batch, count):
    """The batch with a view for each of `count` networks."""
    generator = torch.Generator().manual_seed(5)
    shape = batch.inputs.shape
    views = tuple(torch.randn(shape, generator=generator) for _ in range(count - 1))
    return batch._replace(views=views)


def wrong(logits, label):
    """Cross-entropy of one sample by scipy."""
    return -log_softmax(np.asarray(logits, float))[label]


def random_logits(count, seed, scale=3.0, batch=8, classes=6):
    """Networks that agree in part and are often right, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (batch,), generator=generator)
    shared = torch.randn(1, batch, classes, generator=generator)
    logits = scale * (shared + torch.randn(count, batch, classes, generator=generator))
    logits[:, torch.arange(batch), labels] += scale
    return logits, labels


def test_minlogit_golden_value():
    method, _ = speakers([FIRST, SECOND], LABEL)
    target = method._target([FIRST, SECOND], LABEL)
    np.testing.assert_array_equal(target.numpy(), [[0, -2, -3]])
    want = [[0.628532, 0.231224, 0.140244]]
    np.testing.assert_allclose((target / 2).softmax(1).numpy(), want, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_minlogit_holds_the_label_as_likely_as_anyone_does(seed):
    logits, labels = random_logits(3, seed)
    method, _ = speakers(logits, labels)
    target = method._target(list(logits), labels).softmax(-1)
    rows = torch.arange(len(labels))
    assert (target[rows, labels] >= logits.softmax(-1)[:, rows, labels].amax(0) - 1e-6).all()


def test_naive_chooses_for_each_sample():
    logits, labels = random_logits(3, 0)
    shares = lowest_loss_network(logits, labels)
    costs = np.array([[wrong(z[b], labels[b]) for b in range(8)] for z in logits.numpy()])
    assert shares.argmax(0).tolist() == costs.argmin(0).tolist()
    assert len(set(costs.argmin(0))) > 1
    torch.testing.assert_close(shares.sum(0), torch.ones(8))


def test_linear_golden_value():
    logits = torch.stack([FIRST, SECOND])
    shares = optimal_mixture(logits, LABEL)
    assert shares[0].item() == pytest.approx(0.5644, abs=1e-4)
    assert wrong(weighted_sum(logits, shares)[0].numpy(), 0) == pytest.approx(0.305241, abs=1e-6)
    path = {0: 0.407606, 0.25: 0.334258, 0.5: 0.306356, 0.75: 0.313781, 1: 0.349012}
    for share, want in path.items():
        shares = torch.tensor([[share], [1 - share]])
        assert wrong(weighted_sum(logits, shares)[0].numpy(), 0) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_linear_of_two_equals_scipy(scale):
    logits, labels = random_logits(2, 1, scale)
    shares = optimal_mixture(logits, labels)
    first, second = logits.double().numpy()
    for b, label in enumerate(labels):

        def cost(a, b=b, label=label):
            return wrong(a * first[b] + (1 - a) * second[b], label)

        best = min(minimize_scalar(cost, bounds=(0, 1), method="bounded").fun, cost(0), cost(1))
        assert cost(shares[0, b].item()) <= best + 1e-5
    torch.testing.assert_close(shares.sum(0), torch.ones(len(labels)))


@pytest.mark.parametrize("count", [3, 4])
def test_linear_of_more_equals_scipy(count):
    logits, labels = random_logits(count, 2)
    shares = optimal_mixture(logits, labels)
    corners = 0
    for b, label in enumerate(labels):
        z = logits[:, b].double().numpy()
        minimum = minimize(
            lambda a, z=z, label=label: wrong(a @ z, label),
            np.full(count, 1 / count),
            bounds=[(0, 1)] * count,
            constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        assert wrong(shares[:, b].double().numpy() @ z, label) <= minimum.fun + 2e-3
        corners += (minimum.x < 1e-6).any()
    assert corners > 0  # some optima lie on the edge, where a network has no share
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(0), torch.ones(len(labels)))


def test_linear_of_two_and_of_more_agree():
    logits, labels = random_logits(2, 3)
    tripled = torch.cat([logits, logits[1:]])  # the second network twice adds nothing
    two, three = optimal_mixture(logits, labels), optimal_mixture(tripled, labels)
    costs = [
        torch.nn.functional.cross_entropy(weighted_sum(z, s), labels, reduction="none")
        for z, s in ((logits, two), (tripled, three))
    ]
    torch.testing.assert_close(*costs, atol=2e-3, rtol=0)


@pytest.mark.parametrize("count", [2, 3])
def test_linear_of_networks_that_agree_is_what_they_say(count):
    logits, labels = random_logits(1, 0)
    same = logits.expand(count, -1, -1)
    torch.testing.assert_close(weighted_sum(same, optimal_mixture(same, labels)), logits[0])
    nearly = same * (1 + 1e-5 * torch.arange(count).view(-1, 1, 1))
    shares = optimal_mixture(nearly, labels)
    torch.testing.assert_close(shares.sum(0), torch.ones(len(labels)))
    torch.testing.assert_close(weighted_sum(nearly, shares), logits[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_projection_is_the_nearest_point_of_the_simplex(seed):
    x = 2 * torch.randn(4, 50, generator=torch.Generator().manual_seed(seed))
    point = project_to_simplex(x)
    assert (point >= 0).all()
    torch.testing.assert_close(point.sum(0), torch.ones(50))
    for corner in torch.eye(4):  # no corner lies in the direction of what was projected
        assert (((x - point) * (corner[:, None] - point)).sum(0) < 1e-5).all()
    torch.testing.assert_close(project_to_simplex(point), point)
    for large in (1e6 * x, x + 1e6):
        torch.testing.assert_close(project_to_simplex(large).sum(0), torch.ones(50))


def test_general_golden_value():
    errors = torch.tensor([[0.04, 0.01], [0.01, 0.09]])
    np.testing.assert_allclose(
        least_squares_weights(errors).numpy(), [0.727273, 0.272727], atol=1e-4
    )


def test_general_has_the_least_squared_error():
    generator = np.random.default_rng(0)
    mistakes = generator.normal(size=(3, 200)) * [[1.0], [0.5], [2.0]] + generator.normal(size=200)
    errors = mistakes @ mistakes.T / 200
    minimum = minimize(
        lambda w: w @ errors @ w,
        np.full(3, 1 / 3),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    weights = least_squares_weights(torch.tensor(errors, dtype=torch.float32))
    np.testing.assert_allclose(weights.numpy(), minimum.x, atol=2e-3)


@pytest.mark.parametrize("errors", [torch.full((3, 3), 0.2), torch.zeros(3, 3)])
def test_general_of_networks_that_agree_is_equal(errors):
    np.testing.assert_allclose(least_squares_weights(errors).numpy(), [1 / 3] * 3, atol=1e-3)


def test_mixtures_stay_in_fp32_under_autocast():
    logits, labels = random_logits(2, 0)
    with torch.autocast("cpu", torch.bfloat16):
        half = weighted_sum(logits, optimal_mixture(logits, labels))
    assert half.dtype == torch.float32
    assert torch.equal(half, weighted_sum(logits, optimal_mixture(logits, labels)))


def expected_target(target, z, labels):
    """A target by numpy, from logits (networks, B, K)."""
    rows = np.arange(len(labels))
    if target == "minlogit":
        return (z - z[:, rows, labels][..., None]).min(0)
    if target == "general":
        return z.mean(0)
    costs = -log_softmax(z, axis=-1)[:, rows, labels]
    return z[costs.argmin(0), rows]


@pytest.mark.parametrize("target", ["naive", "minlogit", "general"])
def test_terms_equal_scipy(target, progress):
    logits, labels = random_logits(3, 4, batch=5, classes=3)
    method, images = speakers(logits, labels, ensemble=target, soft_weight=0.7)
    losses = method(images, progress).losses
    z = logits.double().numpy()
    p = softmax(expected_target(target, z, labels.numpy()) / 2, axis=1)
    for logits_k, prefix in zip(z, ["", "peer1/", "peer2/"], strict=True):
        distance = 4 * rel_entr(p, softmax(logits_k / 2, axis=1)).sum(1).mean()
        assert losses[f"{prefix}soft"].item() == pytest.approx(0.7 * distance, rel=1e-4)
        want = np.mean([wrong(row, label) for row, label in zip(logits_k, labels, strict=True)])
        assert losses[f"{prefix}task"].item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_each_term_trains_its_own_network_only(target, tiny_net, tiny_task, batch, progress):
    method = METHODS["kdcl"](tiny_net, others_of(tiny_net, 2), tiny_task, ensemble=target)
    networks = dict(zip(["", "peer1/", "peer2/"], [tiny_net, *method.peers], strict=True))
    losses = method(seen_by(batch, 3), progress).losses
    assert len(losses) == 6
    for name, loss in losses.items():
        for prefix, network in networks.items():
            parameters = list(network.parameters())
            grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            trained = name in (f"{prefix}task", f"{prefix}soft")
            assert all((g is not None) == trained for g in grads), (name, prefix)


def test_each_network_sees_its_own_view(tiny_net, tiny_task, batch, progress):
    method = METHODS["kdcl"](tiny_net, others_of(tiny_net, 2), tiny_task)
    images, inputs = seen_by(batch, 3), []
    for network in (tiny_net, *method.peers):
        network.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    out = method(images, progress).outputs
    assert [x is y for x, y in zip(inputs, (images.inputs, *images.views), strict=True)] == [
        True
    ] * 3
    assert torch.equal(out, tiny_net(images.inputs))


def test_as_many_views_as_networks_are_asked_for(tiny_net, tiny_task, batch, progress):
    method = METHODS["kdcl"](tiny_net, others_of(tiny_net, 2), tiny_task)
    assert method.needs == Needs(views=3, image_labels=True, single_label=True)
    assert METHODS["kdcl"].needs == Needs(views=2, image_labels=True, single_label=True)
    with pytest.raises(ConfigError, match="views=3"):
        method(seen_by(batch, 2), progress)


def test_alone_is_an_error(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="--peer"):
        METHODS["kdcl"](tiny_net, [], tiny_task)


def test_without_soft_there_are_labels_only(tiny_net, tiny_task, batch, progress):
    method = METHODS["kdcl"](tiny_net, others_of(tiny_net), tiny_task, soft_weight=0.0).eval()
    losses = method(seen_by(batch, 2), progress).losses
    assert losses.keys() == {"task", "peer1/task"}
    want = nn.functional.cross_entropy(tiny_net(batch.inputs), batch.targets)
    torch.testing.assert_close(losses["task"], want)


def general(net, task, count=1):
    """Networks with statistics of some batch, so that the modes differ."""
    method = METHODS["kdcl"](net, others_of(net, count), task, ensemble="general")
    for network in (method.student, *method.peers):
        network(3 + 2 * torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(3)))
    return method


def test_weights_come_from_held_out_images(tiny_net, tiny_task, batch):
    method = general(tiny_net, tiny_task, count=2)
    np.testing.assert_allclose(method.weights.numpy(), [1 / 3] * 3)
    parts = [Batch(batch.inputs[a:b], batch.targets[a:b], batch.indices[a:b]) for a, b in
             ((0, 5), (5, 8))]  # fmt: skip
    method.after_epoch(iter(parts))
    twin = copy.deepcopy(method).eval()
    with torch.no_grad():
        outputs = [
            network(batch.inputs).double().numpy() for network in (twin.student, *twin.peers)
        ]
    errors = np.stack([softmax(z, axis=1) - np.eye(5)[batch.targets] for z in outputs])
    products = np.einsum("kbc,lbc->kl", errors, errors) / 8
    products += 1e-4 * np.trace(products) / 3 * np.eye(3)  # the documented ridge
    solution = np.linalg.inv(products).sum(1)
    np.testing.assert_allclose(method.weights.numpy(), solution / solution.sum(), rtol=2e-3)
    target = method._target([torch.tensor(z, dtype=torch.float32) for z in outputs], batch.targets)
    want = np.einsum("k,kbc->bc", method.weights.double().numpy(), np.stack(outputs))
    np.testing.assert_allclose(target.numpy(), want, rtol=1e-4, atol=1e-5)


def test_measuring_leaves_networks_and_modes_alone(tiny_net, tiny_task, batch):
    method = general(tiny_net, tiny_task).train()
    method.peers[0].stage1.eval()
    modes = [module.training for module in method.modules()]
    before = {k: v.clone() for k, v in method.state_dict().items() if k != "weights"}
    method.after_epoch([batch])
    assert [module.training for module in method.modules()] == modes
    assert all(torch.equal(method.state_dict()[k], v) for k, v in before.items())
    assert all(p.grad is None for p in method.parameters())


def test_without_held_out_images_the_weights_stay(tiny_net, tiny_task, batch):
    method = general(tiny_net, tiny_task)
    method.after_epoch(())
    assert method.weights.tolist() == [0.5, 0.5]
    method.after_epoch([batch])
    measured = method.weights.clone()
    assert measured[0] != measured[1]
    method.after_epoch(())
    assert torch.equal(method.weights, measured)


def test_only_the_general_target_looks_at_held_out_images(tiny_net, tiny_task):
    method = METHODS["kdcl"](tiny_net, others_of(tiny_net), tiny_task)

    def never():
        raise AssertionError
        yield

    method.after_epoch(never())
    assert "weights" not in dict(method.named_buffers())


def measure(rank, method, rounds, meeting, answers):
    """In a process of its own: the weights after each round of this process's images."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    weights = []
    for parts in rounds:
        method.after_epoch(parts[rank])
        weights.append(method.weights.tolist())
    answers.put(weights)
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_share_what_they_measured(tiny_net, tiny_task, batch, tmp_path):
    method = general(tiny_net, tiny_task)
    method.after_epoch([batch])
    want = pytest.approx(method.weights.tolist(), rel=1e-3)
    part = Batch(batch.inputs[:3], batch.targets[:3], batch.indices[:3])
    second = Batch(batch.inputs[3:], batch.targets[3:], batch.indices[3:])
    rounds = [([part], [second]), ([batch], [])]  # a process may have no image
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["pytest", "selfdistill.runs.train"])
    answers = server.Queue()
    arguments = (method, rounds, str(tmp_path / "meeting"), answers)
    processes = [server.Process(target=measure, args=(rank, *arguments)) for rank in (0, 1)]
    for process in processes:
        process.start()
    first, second = answers.get(timeout=120), answers.get(timeout=120)
    for process in processes:
        process.join(30)
    assert first == second
    assert first[0] == want
    assert first[1] == want


def test_all_networks_predict_the_student_last(tiny_net, tiny_task):
    method = METHODS["kdcl"](tiny_net, others_of(tiny_net, 2), tiny_task)
    assert list(method.predictors()) == ["peer1", "peer2", "student"]


def test_defaults():
    defaults = {o.name: o.default for o in options(METHODS["kdcl"]).values()}
    assert defaults == {"ensemble": "minlogit", "soft_weight": 1.0, "temperature": 2.0}
