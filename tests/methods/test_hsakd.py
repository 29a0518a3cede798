"""HSAKD, its teacher and its online form: labels of turns, terms by scipy, where gradients stop."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from selfdistill.core import METHODS, ConfigError, Frozen
from selfdistill.modules.rotations import joint_labels, turned
from selfdistill.taps import Taps

STAGES = ("stage1", "stage2", "stage3", "stage4")


def joint_teacher(net, task, taps=STAGES, **options):
    torch.manual_seed(3)
    return METHODS["hsakd-teacher"](Taps(net, taps, example=task.example), task, **options)


@pytest.fixture
def pair(tiny_net, tiny_task):
    """A student and the method of its teacher, whose network is another of the same form."""
    other = copy.deepcopy(tiny_net)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.3)
    return Taps(tiny_net, STAGES, example=tiny_task.example), joint_teacher(other, tiny_task)


def hsakd(pair, task, **options):
    torch.manual_seed(0)
    return METHODS["hsakd"](pair[0], Frozen(pair[1]), task, **options)


def test_labels_of_class_and_turn():
    labels = joint_labels(torch.tensor([2, 0]))
    assert labels.tolist() == [8, 0, 9, 1, 10, 2, 11, 3]
    images = torch.randn(2, 3, 4, 4)
    np.testing.assert_array_equal(turned([images] * 4)[2:4].numpy(), np.rot90(images, 1, (2, 3)))


def test_heads_are_copies_of_the_stages_behind_their_tap(tiny_net, tiny_task):
    method = joint_teacher(tiny_net, tiny_task)
    shapes = [
        [tuple(p.shape) for p in stages.parameters() if p.dim() == 4]
        for stages in method.heads.heads
    ]
    full = [(8, 8, 3, 3), (12, 8, 3, 3), (16, 12, 3, 3)]
    assert shapes == [full, full[1:], full[2:], []]
    own = {id(p) for p in method.student.parameters()}
    assert not own & {id(p) for p in method.heads.parameters()}
    outputs, joint = method.knowledge(torch.zeros(4, 3, 16, 16))
    assert outputs.shape == (4, 5)
    assert [tuple(q.shape) for q in joint] == [(4, 20)] * 4


def test_terms_of_the_teacher(tiny_net, tiny_task, batch, progress):
    method = joint_teacher(tiny_net, tiny_task).eval()
    with torch.no_grad():
        losses = method(batch, progress).losses
        plain = method.student(batch.inputs).double().numpy()
        _, joint = method.knowledge(turned([batch.inputs] * 4))
    labels = batch.targets.numpy()
    rows = np.arange(32)
    wanted = np.array([4 * labels[r % 8] + r // 8 for r in rows])
    assert float(losses["task"]) == pytest.approx(
        -log_softmax(plain, 1)[np.arange(8), labels].mean(), rel=1e-5
    )
    for i, q in enumerate(joint, 1):
        want = -log_softmax(q.double().numpy(), 1)[rows, wanted].mean()
        assert float(losses[f"joint/{i}"]) == pytest.approx(want, rel=1e-5)


def test_terms_of_the_student(pair, tiny_task, batch, progress):
    method = hsakd(pair, tiny_task).eval()
    inputs = turned([batch.inputs] * 4)
    with torch.no_grad():
        losses = method(batch, progress).losses
        z, features = method.student.forward_features(inputs, raw=True)
        q = method.heads(list(features.values()))
        z_t, q_t = pair[1].eval().knowledge(inputs)

    def divergence(student, teacher):
        s, t = student.double().numpy() / 3, teacher.double().numpy() / 3
        return 9 * (softmax(t, 1) * (log_softmax(t, 1) - log_softmax(s, 1))).sum(1).mean()

    assert set(losses) == {"task", "soft", *(f"joint/{i}" for i in range(1, 5))}
    assert float(losses["soft"]) == pytest.approx(divergence(z, z_t), rel=1e-4)
    for i, heads in enumerate(zip(q, q_t, strict=True), 1):
        assert float(losses[f"joint/{i}"]) == pytest.approx(divergence(*heads), rel=1e-4, abs=1e-6)


def test_features_of_the_student_learn_from_the_heads_and_a_frozen_network_does_not(
    pair, tiny_task, batch, progress
):
    method = hsakd(pair, tiny_task).train()
    first = next(method.student.parameters())
    loss = method(batch, progress).losses["joint/4"]
    (grad,) = torch.autograd.grad(loss, first)
    assert grad.abs().max() > 0
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_a_frozen_teacher_trains_its_heads_alone(tiny_net, tiny_task, batch, progress):
    method = joint_teacher(tiny_net, tiny_task, backbone="frozen").train()
    before = {n: t.clone() for n, t in method.student.state_dict().items()}
    step = method(batch, progress)
    assert set(step.losses) == {f"joint/{i}" for i in range(1, 5)}
    step.total.backward()
    torch.optim.SGD(method.param_groups(), lr=0.1).step()
    assert all(torch.equal(before[n], t) for n, t in method.student.state_dict().items())
    assert all(p.grad is not None for p in method.heads.parameters())


def test_networks_learn_from_each_other_without_moving_their_teachers(
    pair, tiny_task, batch, progress
):
    peer = Taps(pair[1].student.network, STAGES, example=tiny_task.example)
    method = METHODS["hsakd-online"](pair[0], [peer], tiny_task).train()
    losses = method(batch, progress).losses
    for name in ("soft", "joint/1", "joint/4"):
        grads = torch.autograd.grad(
            losses[name], list(peer.parameters()), retain_graph=True, allow_unused=True
        )
        assert all(g is None for g in grads), name
        own = torch.autograd.grad(losses[name], next(pair[0].parameters()), retain_graph=True)
        assert own[0].abs().max() > 0
    assert {n.removeprefix("peer1/") for n in losses if n.startswith("peer1/")} == {
        n for n in losses if not n.startswith("peer1/")
    }


def test_networks_of_other_depths_are_refused(pair, tiny_task):
    student = Taps(pair[0].network, STAGES[1:], example=tiny_task.example)
    with pytest.raises(ConfigError, match="behind 4 taps and the student has 3 taps"):
        hsakd((student, pair[1]), tiny_task)
    with pytest.raises(ConfigError, match="the student has 3 taps and a peer has 4"):
        METHODS["hsakd-online"](student, [pair[1].student], tiny_task)
