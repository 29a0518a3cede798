"""NKD against the authors' code and scipy, and how it relates to decoupled distillation."""

import numpy as np
import pytest
import torch
from golden_logits import LABELS, STUDENT, TEACHER
from offline_pairs import Says, teacher_net
from scipy.special import log_softmax, softmax

from selfdistill.core import METHODS, ConfigError, Frozen, options
from selfdistill.methods.dkd import decoupled_divergence
from selfdistill.methods.nkd import other_classes_loss, target_class_loss


def test_terms_are_those_of_the_authors_code(batch, tiny_task, progress):
    method = METHODS["nkd"](Says(STUDENT), Frozen(Says(TEACHER)), tiny_task)
    losses = method(batch._replace(inputs=batch.inputs[:4], targets=LABELS), progress).losses
    # yzd-v/cls_KD, mmcls/models/dis_losses/nkd.py at 1e5d48f; γ = 0, and the difference to γ = 1
    target, both = 0.5434358554477086, 3.43269452009086
    assert losses["target"].item() == pytest.approx(target, rel=1e-5)
    assert losses["others"].item() == pytest.approx(1.5 * (both - target), rel=1e-5)
    torch.testing.assert_close(losses["task"], tiny_task.loss(STUDENT, LABELS))
    others = other_classes_loss(STUDENT, TEACHER, LABELS, 3.0).item()
    assert others == pytest.approx(14.960946598674228 - target, rel=1e-5)


def test_others_equal_scipy():
    values = []
    for student, teacher, y in zip(STUDENT.numpy(), TEACHER.numpy(), LABELS.tolist(), strict=True):
        s, t = (np.delete(z.astype(float), y) / 2 for z in (student, teacher))
        values.append(-4 * (softmax(t) * log_softmax(s)).sum())
    got = other_classes_loss(STUDENT, TEACHER, LABELS, 2.0).item()
    assert got == pytest.approx(np.mean(values), rel=1e-5)


def test_others_have_the_gradient_of_decoupled_distillation():
    gradients = []
    for loss in (
        lambda s: other_classes_loss(s, TEACHER, LABELS, 4.0),
        lambda s: decoupled_divergence(s, TEACHER, LABELS, 4.0).others,
    ):
        student = STUDENT.clone().requires_grad_()
        gradients += torch.autograd.grad(loss(student), student)
    torch.testing.assert_close(*gradients)


def test_an_unsure_teacher_does_not_teach_the_label():
    teacher = torch.zeros(1, 3)
    teacher[0, 0] = -100.0
    loss = target_class_loss(torch.randn(1, 3), teacher, torch.tensor([0]))
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_two_classes_have_no_others():
    loss = other_classes_loss(torch.randn(4, 2), torch.randn(4, 2), torch.tensor([0, 1, 1, 0]), 1.0)
    assert loss.item() == 0


def test_options_and_defaults(tiny_net, tiny_task):
    defaults = {o.name: o.default for o in options(METHODS["nkd"]).values()}
    assert defaults == {
        "supervised_weight": 1.0,
        "target_class_weight": 1.0,
        "non_target_class_weight": 1.5,
        "temperature": 1.0,
    }
    none = dict.fromkeys(list(defaults)[:3], 0.0)
    with pytest.raises(ConfigError, match="needs a loss"):
        METHODS["nkd"](tiny_net, Frozen(teacher_net()), tiny_task, **none)
