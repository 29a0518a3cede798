"""Mutual learning against scipy, and who learns from whom."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import nn

from selfdistill.core import METHODS, Batch, ConfigError, options
from selfdistill.tasks import Classification

FIRST = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
SECOND = torch.tensor([[3.0, 1.0, 0.0], [2.0, -1.0, 0.0]])


class Says(nn.Module):
    """A network that says the same of every batch."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, x):
        return self.logits


def speakers(*logits, **keywords):
    """Mutual learning of networks that say these logits, and a batch for it."""
    task = Classification("abc", torch.zeros(2, 3, 4, 4))
    student, *peers = map(Says, logits)
    images = Batch(torch.zeros(2, 3, 4, 4), torch.tensor([2, 0]), torch.arange(2))
    return METHODS["dml"](student, peers, task, **keywords), images


def divergence(target, logits, temperature=1.0):
    """KL(target || said) by scipy, mean over samples, times the squared temperature."""
    p, q = (softmax(z.double().numpy() / temperature, axis=1) for z in (target, logits))
    return temperature**2 * rel_entr(p, q).sum(1).mean()


def others_of(net, count=1):
    """Networks like this one, with weights of their own."""
    peers = [copy.deepcopy(net) for _ in range(count)]
    for i, peer in enumerate(peers):
        torch.manual_seed(10 + i)
        for module in peer.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()
    return peers


def test_golden_values(progress):
    method, images = speakers(FIRST, SECOND)
    losses = method(images, progress).losses
    assert losses["soft"].item() == pytest.approx(1.129735, abs=1e-6)
    assert losses["peer1/soft"].item() == pytest.approx(1.280265, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_terms_are_means_over_the_others(temperature, progress):
    torch.manual_seed(0)
    logits = [3 * torch.randn(2, 3) for _ in range(4)]
    method, images = speakers(*logits, temperature=temperature, soft_weight=0.5)
    losses = method(images, progress).losses
    for k, prefix in enumerate(["", "peer1/", "peer2/", "peer3/"]):
        divergences = [
            divergence(z, logits[k], temperature) for j, z in enumerate(logits) if j != k
        ]
        assert losses[f"{prefix}soft"].item() == pytest.approx(0.5 * np.mean(divergences), rel=1e-5)
        want = -np.log(softmax(logits[k].double().numpy(), axis=1)[[0, 1], [2, 0]]).mean()
        assert losses[f"{prefix}task"].item() == pytest.approx(want, rel=1e-5)


def test_each_term_trains_its_own_network_only(tiny_net, tiny_task, batch, progress):
    method = METHODS["dml"](tiny_net, others_of(tiny_net, 2), tiny_task)
    networks = dict(zip(["", "peer1/", "peer2/"], [tiny_net, *method.peers], strict=True))
    losses = method(batch, progress).losses
    assert len(losses) == 6
    for name, loss in losses.items():
        for prefix, network in networks.items():
            parameters = list(network.parameters())
            grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            trained = name in (f"{prefix}task", f"{prefix}soft")
            assert all((g is not None) == trained for g in grads), (name, prefix)


def test_the_sum_gives_each_network_the_gradient_of_its_own_loss(progress):
    method, images = speakers(FIRST, SECOND)
    method(images, progress).total.backward()
    labels = np.eye(3)[images.targets]
    for network, other in ((method.student, method.peers[0]), (method.peers[0], method.student)):
        p, q = (softmax(n.logits.detach().double().numpy(), axis=1) for n in (network, other))
        want = ((p - labels) + (p - q)) / 2  # of cross-entropy and of KL(q || p), by hand
        np.testing.assert_allclose(network.logits.grad.numpy(), want, atol=1e-6)


def test_networks_with_the_same_weights_teach_each_other_nothing(progress):
    method, images = speakers(FIRST, FIRST)
    loss = method(images, progress).losses["soft"]
    assert abs(loss.item()) < 1e-7
    (gradient,) = torch.autograd.grad(loss, method.student.logits)
    assert gradient.abs().max() < 1e-7


def test_without_soft_the_student_trains_as_if_alone(tiny_net, tiny_task, batch, progress):
    plain = METHODS["ce"](copy.deepcopy(tiny_net), tiny_task)
    method = METHODS["dml"](tiny_net, others_of(tiny_net), tiny_task, soft_weight=0.0)
    assert method(batch, progress).losses.keys() == {"task", "peer1/task"}
    method.load_state_dict({f"student.{k}": v for k, v in plain.student.state_dict().items()},
                           strict=False)  # fmt: skip
    for trained in (method, plain):
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            trained(batch, progress).total.backward()
            optimizer.step()
    alone, student = plain.student.state_dict(), method.student.state_dict()
    assert all(torch.equal(student[name], alone[name]) for name in alone)


def test_all_networks_predict_the_student_last(tiny_net, tiny_task, batch):
    method = METHODS["dml"](tiny_net, others_of(tiny_net, 2), tiny_task).eval()
    assert list(method.predictors()) == ["peer1", "peer2", "student"]
    outputs = method.predict(batch.inputs)
    assert torch.equal(outputs["student"], tiny_net(batch.inputs))
    assert not torch.equal(outputs["peer1"], outputs["peer2"])


def test_alone_is_an_error(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="--peer"):
        METHODS["dml"](tiny_net, [], tiny_task)


def test_defaults_are_the_papers():
    defaults = {o.name: o.default for o in options(METHODS["dml"]).values()}
    assert defaults == {"soft_weight": 1.0, "temperature": 1.0}
