"""Decoupled distillation against scipy, its identity with plain distillation, and its warm-up."""

import numpy as np
import pytest
import torch
from golden_logits import LABELS, STUDENT, TEACHER
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from offline_pairs import Says, teacher_net
from scipy.special import rel_entr, softmax

from selfdistill.core import METHODS, ConfigError, Frozen, Progress, options
from selfdistill.methods.dkd import decoupled_divergence

logits = arrays(np.float32, (1, 5), elements=st.floats(-10, 10, width=32))


def by_scipy(student: np.ndarray, teacher: np.ndarray, label: int, temperature: float):
    """Both parts for one image, by leaving the label out."""
    p_student, p_teacher = (softmax(z[0].astype(float) / temperature) for z in (student, teacher))
    binary = [np.array([p[label], 1 - p[label]]) for p in (p_teacher, p_student)]
    others = [np.delete(p, label) / (1 - p[label]) for p in (p_teacher, p_student)]
    return tuple(temperature**2 * rel_entr(*pair).sum() for pair in (binary, others))


def parts(student: np.ndarray, teacher: np.ndarray, label: int, temperature: float):
    tensors = torch.from_numpy(student), torch.from_numpy(teacher), torch.tensor([label])
    return tuple(part.item() for part in decoupled_divergence(*tensors, temperature))


@settings(max_examples=50, deadline=None)
@given(logits, logits, st.integers(0, 4), st.floats(1, 8))
def test_parts_equal_scipy(student, teacher, label, temperature):
    got = parts(student, teacher, label, temperature)
    assert got == pytest.approx(by_scipy(student, teacher, label, temperature), rel=1e-3, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(logits, logits, st.integers(0, 4))
def test_plain_distillation_is_their_sum_weighed_by_doubt(student, teacher, label):
    target, others = parts(student, teacher, label, 4.0)
    p_student, p_teacher = (softmax(z[0].astype(float) / 4) for z in (student, teacher))
    divergence = 16 * rel_entr(p_teacher, p_student).sum()
    assert target + (1 - p_teacher[label]) * others == pytest.approx(divergence, rel=1e-3, abs=1e-3)


def test_mean_over_the_batch():
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(size=(2, 6, 5)).astype(np.float32)
    labels = [3, 0, 4, 1, 1, 2]
    values = [
        by_scipy(student[i : i + 1], teacher[i : i + 1], y, 4.0) for i, y in enumerate(labels)
    ]
    got = decoupled_divergence(
        torch.from_numpy(student), torch.from_numpy(teacher), torch.tensor(labels), 4.0
    )
    assert torch.stack([*got]).tolist() == pytest.approx(np.mean(values, 0).tolist(), rel=1e-4)


def test_a_sure_teacher_is_no_infinity():
    student = torch.tensor([[300.0, 0, -300]], requires_grad=True)
    divergences = decoupled_divergence(
        student, torch.tensor([[900.0, 1, 2]]), torch.tensor([0]), 1.0
    )
    sum(divergences).backward()
    assert all(torch.isfinite(part) for part in divergences)
    assert torch.isfinite(student.grad).all()
    assert divergences.others > 0  # it still says which of the others is nearer


def test_two_classes_have_no_others():
    divergences = decoupled_divergence(
        torch.randn(4, 2), torch.randn(4, 2), torch.tensor([0, 1, 1, 0]), 4.0
    )
    assert divergences.others.item() == 0
    assert divergences.target.item() > 0


def test_gradients_of_the_parts_are_apart(batch, tiny_task, progress):
    method = METHODS["dkd"](
        Says(torch.randn(8, 5)), Frozen(Says(torch.randn(8, 5))), tiny_task, warmup_fraction=0.0
    )
    losses = method(batch, progress).losses
    labels = batch.targets[:, None]
    (others,) = torch.autograd.grad(losses["others"], method.student.logits, retain_graph=True)
    assert others.gather(1, labels).abs().max() == 0
    assert others.abs().max() > 0
    (target,) = torch.autograd.grad(losses["target"], method.student.logits)
    assert (target.gather(1, labels).abs() > 0).all()
    assert method.teacher.network.logits.grad is None


def test_terms_grow_over_the_first_twelfth_of_the_run(tiny_net, tiny_task, batch):
    method = METHODS["dkd"](tiny_net, Frozen(teacher_net()), tiny_task).eval()

    def losses(step):
        return method(batch, Progress(*map(torch.tensor, (0, 0, step, 240)))).losses

    full = losses(20)
    for step, share in [(0, 0.0), (5, 0.25), (10, 0.5), (120, 1.0)]:
        values = losses(step)
        for name in ("target", "others"):
            assert values[name].item() == pytest.approx(share * full[name].item(), rel=1e-5)
        assert values["task"].item() == full["task"].item()


def test_weights_and_terms(tiny_net, tiny_task, batch, progress):
    teacher = teacher_net()
    method = METHODS["dkd"](
        tiny_net, Frozen(teacher), tiny_task, target_class_weight=0.0, warmup_fraction=0.0
    ).eval()
    losses = method(batch, progress).losses
    assert losses.keys() == {"task", "others"}
    raw = decoupled_divergence(
        method.student(batch.inputs), teacher(batch.inputs), batch.targets, 4.0
    )
    torch.testing.assert_close(losses["others"], 8 * raw.others)
    plain = METHODS["dkd"](
        tiny_net, Frozen(teacher), tiny_task, target_class_weight=0.0, non_target_class_weight=0.0
    ).eval()
    assert plain(batch, progress).losses.keys() == {"task"}


def test_standardized_logits_give_the_loss_of_the_authors_code(batch, tiny_task, progress):
    method = METHODS["dkd"](
        Says(STUDENT),
        Frozen(Says(TEACHER)),
        tiny_task,
        target_class_weight=9.0,
        non_target_class_weight=72.0,
        temperature=2.0,
        warmup_fraction=0.0,
        standardize_logits=True,
    )
    losses = method(batch._replace(inputs=batch.inputs[:4], targets=LABELS), progress).losses
    # sunshangquan/logit-standardization-KD, mdistiller/distillers/DKD.py at f6e5aa5
    assert losses["target"].item() == pytest.approx(9 * 0.18398077155425935, rel=1e-5)
    assert losses["others"].item() == pytest.approx(72 * 0.6510651153114951, rel=1e-5)


def test_options_that_cannot_be(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="needs a loss"):
        METHODS["dkd"](
            tiny_net,
            Frozen(teacher_net()),
            tiny_task,
            supervised_weight=0.0,
            target_class_weight=0.0,
            non_target_class_weight=0.0,
        )
    with pytest.raises(ConfigError, match="no fraction of a run"):
        METHODS["dkd"](tiny_net, Frozen(teacher_net()), tiny_task, warmup_fraction=20.0)


def test_defaults_and_needs():
    defaults = {o.name: o.default for o in options(METHODS["dkd"]).values()}
    assert defaults == {
        "supervised_weight": 1.0,
        "target_class_weight": 1.0,
        "non_target_class_weight": 8.0,
        "temperature": 4.0,
        "warmup_fraction": pytest.approx(1 / 12),
        "standardize_logits": False,
    }
    assert METHODS["dkd"].needs.image_labels
