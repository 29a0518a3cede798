"""Soft labels against golden numbers and closed forms, and a teacher that stands still."""

import copy

import pytest
import torch
import torch.nn.functional as F
from golden_logits import STUDENT as WAVES
from golden_logits import TEACHER as TEACHER_WAVES
from offline_pairs import Says, teacher_net

from selfdistill.core import METHODS, ConfigError, Frozen, options
from selfdistill.tasks import Classification

STUDENT, TEACHER = [[1.0, 2, 3], [0, 0, 0]], [[3.0, 1, 0], [2, -1, 0]]


def method_and_step(batch, tiny_task, progress, student=STUDENT, teacher=TEACHER, **chosen):
    """A method whose networks say given logits for two images, and its step."""
    method = METHODS["kd"](Says(student), Frozen(Says(teacher)), tiny_task, **chosen)
    two = batch._replace(inputs=batch.inputs[:2], targets=torch.tensor([2, 0]))
    return method, method(two, progress)


def test_golden_number(batch, tiny_task, progress):
    _, step = method_and_step(batch, tiny_task, progress)
    assert step.losses["soft"].item() == pytest.approx(0.9 * 1.481126, rel=1e-5)
    want = 0.1 * F.cross_entropy(torch.tensor(STUDENT), torch.tensor([2, 0])).item()
    assert step.losses["task"].item() == pytest.approx(want, rel=1e-6)


def test_a_high_temperature_compares_centered_logits(batch, tiny_task, progress):
    _, step = method_and_step(batch, tiny_task, progress, soft_weight=1.0, temperature=100.0)
    assert step.losses["soft"].item() == pytest.approx(1.444444, rel=5e-3)


def test_gradient_in_closed_form(batch, tiny_task, progress):
    method, step = method_and_step(
        batch, tiny_task, progress, supervised_weight=0.0, soft_weight=1.0, temperature=3.0
    )
    step.total.backward()
    student, teacher = (torch.tensor(z) / 3 for z in (STUDENT, TEACHER))
    want = 3 * (student.softmax(1) - teacher.softmax(1)) / 2  # temperature over batch
    torch.testing.assert_close(method.student.logits.grad, want)
    assert method.teacher.network.logits.grad is None


def test_blind_to_a_constant_on_all_logits_of_an_image(batch, tiny_task, progress):
    shifted = [[z + 5 for z in STUDENT[0]], STUDENT[1]]
    first, second = (
        method_and_step(batch, tiny_task, progress, student=z)[1].losses for z in (STUDENT, shifted)
    )
    torch.testing.assert_close(first, second)


def test_equal_networks_have_nothing_to_teach(tiny_net, tiny_task, batch, progress):
    method = METHODS["kd"](tiny_net, Frozen(copy.deepcopy(tiny_net)), tiny_task).eval()
    assert method(batch, progress).losses["soft"].item() == pytest.approx(0, abs=1e-6)


def test_teacher_stands_still(tiny_net, tiny_task, batch, progress):
    teacher = teacher_net()
    before = copy.deepcopy(teacher.state_dict())
    method = METHODS["kd"](tiny_net, Frozen(teacher), tiny_task).train()
    step = method(batch, progress)
    step.total.backward()
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in tiny_net.parameters())


def test_labels_only_is_plain_training_and_asks_no_teacher(tiny_net, tiny_task, batch, progress):
    teacher = teacher_net()
    teacher.register_forward_hook(lambda *_: pytest.fail("the teacher was asked"))
    plain = METHODS["ce"](copy.deepcopy(tiny_net), tiny_task)(batch, progress)
    method = METHODS["kd"](
        tiny_net, Frozen(teacher), tiny_task, supervised_weight=1.0, soft_weight=0.0
    )
    losses = method(batch, progress).losses
    assert losses.keys() == {"task"}
    assert torch.equal(losses["task"], plain.losses["task"])


def test_nothing_to_learn_is_an_error(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="supervised_weight or soft_weight"):
        METHODS["kd"](
            tiny_net, Frozen(teacher_net()), tiny_task, supervised_weight=0.0, soft_weight=0.0
        )


def test_defaults():
    defaults = {o.name: o.default for o in options(METHODS["kd"]).values()}
    assert defaults == {
        "supervised_weight": 0.1,
        "soft_weight": 0.9,
        "temperature": 4.0,
        "standardize_logits": False,
    }


def standardized(batch, task, progress, student, teacher=TEACHER_WAVES):
    method = METHODS["kd"](
        Says(student),
        Frozen(Says(teacher)),
        task,
        soft_weight=9.0,
        temperature=2.0,
        standardize_logits=True,
    )
    return method, method(
        batch._replace(inputs=batch.inputs[:4], targets=batch.targets[:4]), progress
    )


def test_standardized_logits_give_the_loss_of_the_authors_code(batch, tiny_task, progress):
    _, step = standardized(batch, tiny_task, progress, WAVES)
    # sunshangquan/logit-standardization-KD, mdistiller/distillers/KD.py at f6e5aa5
    assert step.losses["soft"].item() == pytest.approx(9 * 0.72736482107328, rel=1e-5)
    plain = F.cross_entropy(WAVES, batch.targets[:4])
    torch.testing.assert_close(step.losses["task"], 0.1 * plain)  # of the logits as they are
    assert torch.equal(step.outputs, WAVES)


def test_standardized_logits_leave_the_students_spread_free(batch, tiny_task, progress):
    method, step = standardized(batch, tiny_task, progress, 0.1 * TEACHER_WAVES + 2)
    assert step.losses["soft"].item() == pytest.approx(0, abs=1e-5)
    (gradient,) = torch.autograd.grad(step.losses["soft"], method.student.logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-3, rtol=0)


def test_two_classes_are_not_standardized(tiny_net):
    task = Classification("ab", torch.zeros(2, 3, 16, 16))
    with pytest.raises(ConfigError, match="three classes or more"):
        METHODS["kd"](tiny_net, Frozen(teacher_net()), task, standardize_logits=True)
