"""TTM and WTTM against the authors' code, their identities, and scenes."""

import pytest
import torch
from golden_logits import LABELS, STUDENT, TEACHER
from offline_pairs import Says, teacher_net
from scene_pairs import scene_batch, scene_net, scene_task
from scipy.special import rel_entr, softmax

from selfdistill.core import IGNORE, METHODS, ConfigError, Frozen, options
from selfdistill.functional.divergence import kl_divergence
from selfdistill.methods.ttm import transformed_divergences


# zkxufo/TTM, distiller_zoo/ttm.py and wttm.py at fe457b3, for exponents of .1, .2 and .5
@pytest.mark.parametrize(
    ("weighted", "temperature", "want"),
    [
        (False, 10.0, 1.5947972216366044),
        (False, 2.0, 1.8920291565766687),
        (True, 10.0, 6.198712078384926),
        (True, 5.0, 5.179972749625566),
        (True, 2.0, 3.5550888322242047),
    ],
)
def test_loss_is_that_of_the_authors_code(weighted, temperature, want, batch, tiny_task, progress):
    method = METHODS["ttm"](
        Says(STUDENT),
        Frozen(Says(TEACHER)),
        tiny_task,
        soft_weight=3.0,
        temperature=temperature,
        weighted=weighted,
    )
    losses = method(batch._replace(inputs=batch.inputs[:4], targets=LABELS), progress).losses
    assert losses["soft"].item() == pytest.approx(3 * want, rel=1e-5)
    torch.testing.assert_close(losses["task"], tiny_task.loss(STUDENT, LABELS))


def test_equals_scipy():
    p = softmax(TEACHER.double().numpy(), 1)
    powers = p**0.25
    target = powers / powers.sum(1, keepdims=True)
    want = rel_entr(target, softmax(STUDENT.double().numpy(), 1)).sum(1)
    got = transformed_divergences(STUDENT, TEACHER, 4.0, weighted=False)
    assert got.tolist() == pytest.approx(want.tolist(), rel=1e-5)
    got = transformed_divergences(STUDENT, TEACHER, 4.0, weighted=True)
    assert got.tolist() == pytest.approx((powers.sum(1) * want).tolist(), rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_at_temperature_one_it_is_the_plain_divergence(weighted):
    got = transformed_divergences(STUDENT, TEACHER, 1.0, weighted=weighted).mean()
    torch.testing.assert_close(got, kl_divergence(STUDENT, TEACHER, 1.0))


def test_gradient_is_the_difference_of_the_distributions():
    student = STUDENT.clone().requires_grad_()
    transformed_divergences(student, TEACHER, 10.0, weighted=False).sum().backward()
    torch.testing.assert_close(student.grad, STUDENT.softmax(1) - (TEACHER / 10).softmax(1))


def test_a_sure_teacher_is_no_infinity():
    student = torch.tensor([[300.0, 0, -300]], requires_grad=True)
    loss = transformed_divergences(student, torch.tensor([[900.0, 1, 2]]), 1.0, weighted=True)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad.isfinite().all()


def test_void_pixels_are_left_out(progress):
    student, teacher = scene_net(), scene_net(seed=1).eval()
    method = METHODS["ttm"](student, Frozen(teacher), scene_task(), weighted=True).eval()
    batch = scene_batch()
    batch.targets.fill_(0)
    batch.targets[:, :8] = IGNORE  # the upper two of four rows of scores
    lower = [net(batch.inputs)[:, :, 2:] for net in (student, teacher)]
    want = 4 * transformed_divergences(*lower, 5.0, weighted=True).mean()
    torch.testing.assert_close(method(batch, progress).losses["soft"], want)


def test_each_form_has_its_setting(tiny_net, tiny_task):
    defaults = {o.name: o.default for o in options(METHODS["ttm"]).values()}
    assert defaults == {
        "supervised_weight": 1.0,
        "soft_weight": None,
        "temperature": None,
        "weighted": False,
    }
    for weighted, setting in ((False, (45.0, 10.0)), (True, (4.0, 5.0))):
        method = METHODS["ttm"](tiny_net, Frozen(teacher_net()), tiny_task, weighted=weighted)
        assert (method.soft_weight, method.temperature) == setting


def test_options_that_cannot_be(tiny_net, tiny_task):
    teacher = Frozen(teacher_net())
    with pytest.raises(ConfigError, match="needs a loss"):
        METHODS["ttm"](tiny_net, teacher, tiny_task, supervised_weight=0.0, soft_weight=0.0)
    with pytest.raises(ConfigError, match="temperature=0 must be above 0"):
        METHODS["ttm"](tiny_net, teacher, tiny_task, temperature=0.0)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_class_that_the_teacher_rules_out_adds_nothing(weighted):
    teacher = TEACHER.clone()
    teacher[:, 1] = -float("inf")
    student = STUDENT.clone().requires_grad_()
    divergences = transformed_divergences(student, teacher, 2.0, weighted=weighted)
    divergences.sum().backward()
    assert divergences.isfinite().all()
    assert student.grad.isfinite().all()
