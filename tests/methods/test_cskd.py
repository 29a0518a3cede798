"""CS-KD against scipy, where its gradients stop, and the partner's pass."""

import copy

import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from selfdistill.core import METHODS, ConfigError, options
from selfdistill.recipe.build_method import build_method


def cskd(net, task, **keywords):
    return METHODS["cskd"](net, task, **keywords)


@pytest.fixture
def pairs(batch):
    generator = torch.Generator().manual_seed(2)
    return batch._replace(same_class_inputs=torch.randn(batch.inputs.shape, generator=generator))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_terms_equal_scipy(temperature, tiny_net, tiny_task, pairs, progress):
    with torch.no_grad():
        tiny_net.fc.weight.mul_(30)  # outputs that differ by more than rounding
    method = cskd(tiny_net, tiny_task, soft_weight=0.7, temperature=temperature).eval()
    losses = method(pairs, progress).losses
    with torch.no_grad():
        student, other = (
            tiny_net(x).double().numpy() / temperature
            for x in (pairs.inputs, pairs.same_class_inputs)
        )
    target = softmax(other, 1)
    kl = (target * (log_softmax(other, 1) - log_softmax(student, 1))).sum(1).mean()
    assert losses["soft"].item() == pytest.approx(0.7 * temperature**2 * kl, rel=1e-4)
    hard = -log_softmax(student * temperature, 1)[range(len(student)), pairs.targets].mean()
    assert losses["task"].item() == pytest.approx(hard, rel=1e-5)


def test_an_image_is_its_own_partner_for_nothing(tiny_net, tiny_task, batch, progress):
    method = cskd(tiny_net, tiny_task).eval()
    assert (
        abs(method(batch._replace(same_class_inputs=batch.inputs), progress).losses["soft"].item())
        < 1e-6
    )


def test_no_gradient_goes_through_the_partner(tiny_net, tiny_task, pairs, progress):
    pairs.inputs.requires_grad_()
    pairs.same_class_inputs.requires_grad_()
    soft = cskd(tiny_net, tiny_task)(pairs, progress).losses["soft"]
    input_grad, partner_grad = torch.autograd.grad(
        soft, [pairs.inputs, pairs.same_class_inputs], allow_unused=True
    )
    assert input_grad.abs().sum() > 0
    assert partner_grad is None


def test_gradient_is_that_of_a_teacher_of_the_same_weights(tiny_net, tiny_task, pairs, progress):
    method, teacher = cskd(tiny_net, tiny_task), copy.deepcopy(tiny_net)
    soft = method(pairs, progress).losses["soft"]
    gradient = torch.autograd.grad(soft, tiny_net.fc.weight)[0]
    reference = teacher(pairs.same_class_inputs).detach()  # in training mode, too
    want = tiny_task.soft_loss(tiny_net(pairs.inputs), reference, 4.0)
    torch.testing.assert_close(gradient, torch.autograd.grad(want, tiny_net.fc.weight)[0])


def test_statistics_see_images_and_partners_apart(tiny_net, tiny_task, pairs, progress):
    twin = copy.deepcopy(tiny_net)
    cskd(tiny_net, tiny_task)(pairs, progress)
    for images in (pairs.inputs, pairs.same_class_inputs):
        twin(images)
    for name, value in tiny_net.named_buffers():
        torch.testing.assert_close(value, dict(twin.named_buffers())[name])
    assert tiny_net.stage1[1].num_batches_tracked == 2


def test_without_soft_it_trains_as_plain_cross_entropy(tiny_net, tiny_task, pairs, progress):
    twin = copy.deepcopy(tiny_net)
    methods = cskd(tiny_net, tiny_task, soft_weight=0.0), METHODS["ce"](twin, tiny_task)
    for method in methods:
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            method(pairs, progress).total.backward()
            optimizer.step()
    assert all(map(torch.equal, tiny_net.parameters(), twin.parameters()))


def test_partner_labels_play_no_part(tiny_net, tiny_task, pairs, progress):
    method = cskd(tiny_net, tiny_task).eval()
    first = method(pairs, progress).losses
    other = method(
        pairs._replace(same_class_inputs=pairs.same_class_inputs.flip(0)), progress
    ).losses
    assert torch.equal(first["task"], other["task"])
    assert not torch.equal(first["soft"], other["soft"])


def test_a_batch_without_partners_is_told_in_a_sentence(tiny_net, tiny_task, batch, progress):
    with pytest.raises(ConfigError, match=r"fill Batch\.same_class_inputs"):
        cskd(tiny_net, tiny_task)(batch, progress)


def test_a_task_without_class_labels_is_refused(tiny_net, tiny_task):
    class Dense(type(tiny_task)):
        image_labels = False

    with pytest.raises(ConfigError, match="wants one class label an image"):
        build_method("cskd", tiny_net, Dense("abcde", tiny_task.example))


def test_needs_and_defaults(tiny_net, tiny_task):
    method = cskd(tiny_net, tiny_task)
    assert (method.needs.same_class, method.needs.image_labels, method.needs.views) == (
        True,
        True,
        1,
    )
    defaults = {o.name: o.default for o in options(METHODS["cskd"]).values()}
    assert defaults == {"soft_weight": 1.0, "temperature": 4.0}
    assert isinstance(method.predictors()["student"], nn.Sequential)
