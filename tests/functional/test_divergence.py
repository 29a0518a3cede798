"""Soft-label distillation against scipy, golden numbers and its own gradient in closed form."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special, stats

from selfdistill.functional.divergence import (
    kl_divergence,
    soft_cross_entropy,
    standardize_logits,
    weighted_mean,
)

FORBIDDEN = -float("inf")
STUDENT = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
TEACHER = torch.tensor([[3.0, 1.0, 0.0], [2.0, -1.0, 0.0]])
logits = arrays(np.float32, (3, 5), elements=st.floats(-20, 20, width=32)).map(torch.from_numpy)
temperatures = st.floats(0.5, 10)


def by_scipy(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    p_teacher = special.softmax(teacher.double().numpy() / temperature, 1)
    p_student = special.softmax(student.double().numpy() / temperature, 1)
    return temperature**2 * special.rel_entr(p_teacher, p_student).sum(1).mean()


@pytest.mark.parametrize(
    ("student", "teacher", "temperature", "want"),
    [
        (STUDENT, TEACHER, 4.0, 1.481125910306914),
        (STUDENT, TEACHER, 3.0, 1.4716642513454086),
        (STUDENT, TEACHER, 1.0, 1.129734844002209),
        (TEACHER, STUDENT, 1.0, 1.2802653223526246),
        (torch.tensor([[2.0, 0, 0]]), torch.tensor([[0.0, 1, 0]]), 3.0, 0.821946),
        (torch.tensor([[2.0, 0, 0]]), torch.tensor([[0.0, 1, 0]]), 4.0, 0.812841),
    ],
)
def test_golden_numbers(student, teacher, temperature, want):
    assert kl_divergence(student, teacher, temperature).item() == pytest.approx(want, rel=2e-6)


def test_a_hundred_equal_logits():
    assert kl_divergence(torch.ones(4, 100), torch.zeros(4, 100), 3.0).item() == pytest.approx(
        0, abs=1e-6
    )


@settings(max_examples=50, deadline=None)
@given(logits, logits, temperatures)
def test_equals_scipy(student, teacher, temperature):
    got = kl_divergence(student, teacher, temperature).item()
    assert got == pytest.approx(by_scipy(student, teacher, temperature), rel=1e-4, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(logits, temperatures)
def test_zero_for_equal_logits(student, temperature):
    assert kl_divergence(student, student, temperature).item() == 0


@settings(max_examples=50, deadline=None)
@given(logits, logits, st.floats(-10, 10))
def test_blind_to_a_shift_of_all_logits(student, teacher, shift):
    torch.testing.assert_close(
        kl_divergence(student + shift, teacher - shift, 2.0),
        kl_divergence(student, teacher, 2.0),
        atol=1e-3,  # logits of ±20 carry a rounding of 2e-6 each, times 4 for the temperature
        rtol=1e-3,
    )


@settings(max_examples=50, deadline=None)
@given(logits, logits, temperatures)
def test_never_negative(student, teacher, temperature):
    assert kl_divergence(student, teacher, temperature).item() > -1e-5


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradient_in_closed_form(temperature):
    student = STUDENT.clone().requires_grad_()
    kl_divergence(student, TEACHER, temperature).backward()
    p_student = special.softmax(STUDENT.double().numpy() / temperature, 1)
    p_teacher = special.softmax(TEACHER.double().numpy() / temperature, 1)
    want = temperature * (p_student - p_teacher) / 2
    np.testing.assert_allclose(student.grad.numpy(), want, atol=1e-6)


def test_gradient_approaches_the_mean_square_of_centered_logits():
    """Hinton et al. 2015, Eq. 4: at a high temperature the gradient is (z_s - z_t) / K."""
    student = STUDENT.clone().requires_grad_()
    kl_divergence(student, TEACHER, 1000.0).backward()
    centered = [z - z.mean(1, keepdim=True) for z in (STUDENT, TEACHER)]
    torch.testing.assert_close(student.grad, (centered[0] - centered[1]) / 3 / 2, atol=2e-3, rtol=0)


def test_dense_logits_are_averaged_over_positions():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    flat = [z.permute(0, 2, 3, 1).reshape(-1, 5) for z in (student, teacher)]
    got = kl_divergence(student, teacher, 2.0).item()
    assert got == pytest.approx(by_scipy(*flat, 2.0), rel=1e-5)


def test_half_precision_is_computed_in_fp32():
    student, teacher = STUDENT.bfloat16(), TEACHER.bfloat16()
    loss = kl_divergence(student, teacher, 4.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1.481125910306914, rel=1e-5)


def test_huge_logits_stay_finite():
    student = (1e4 * STUDENT).requires_grad_()
    loss = kl_divergence(student, -1e4 * TEACHER, 1.0)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_weights_are_those_of_a_mean():
    values, weights = np.random.default_rng(0).uniform(size=(2, 3, 4))
    mean = weighted_mean(torch.from_numpy(values), torch.from_numpy(weights))
    assert mean.item() == pytest.approx(np.average(values, weights=weights))
    of_samples = kl_divergence(STUDENT, TEACHER, 2.0, torch.tensor([3.0, 1.0])).item()
    each = [by_scipy(STUDENT[i : i + 1], TEACHER[i : i + 1], 2.0) for i in range(2)]
    assert of_samples == pytest.approx(np.average(each, weights=[3, 1]), rel=1e-5)
    assert weighted_mean(torch.ones(3), torch.zeros(3)) == 0


def test_standardized_logits_equal_scipys_z_scores():
    z = np.random.default_rng(0).normal(3, 5, size=(6, 7))
    want = stats.zscore(z, axis=1, ddof=1)
    np.testing.assert_allclose(standardize_logits(torch.from_numpy(z)), want, rtol=1e-4, atol=1e-6)


def test_standardized_logits_have_no_scale_and_no_shift():
    torch.manual_seed(0)
    z = torch.randn(2, 5, 3, 4)
    scale, shift = torch.rand(2, 1, 3, 4) + 0.5, torch.randn(2, 1, 3, 4)
    torch.testing.assert_close(standardize_logits(scale * z + shift), standardize_logits(z))


def test_equal_logits_are_standardized_to_zero_with_a_finite_gradient():
    z = torch.ones(2, 4, requires_grad=True)
    standardized = standardize_logits(z)
    assert (standardized == 0).all()
    kl_divergence(standardized, torch.randn(2, 4), 2.0).backward()
    assert z.grad.isfinite().all()


def test_soft_cross_entropy_is_divergence_plus_entropy():
    target = special.softmax(TEACHER.double().numpy(), 1)
    got = soft_cross_entropy(STUDENT, torch.from_numpy(target)).item()
    entropy = special.entr(target).sum(1).mean()
    assert got == pytest.approx(by_scipy(STUDENT, TEACHER, 1.0) + entropy, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_class_that_the_teacher_rules_out_adds_nothing(temperature):
    student = STUDENT.clone().requires_grad_()
    teacher = torch.tensor([[3.0, FORBIDDEN, 0.0], [2.0, -1.0, FORBIDDEN]])
    loss = kl_divergence(student, teacher, temperature)
    assert loss.item() == pytest.approx(by_scipy(STUDENT, teacher, temperature), rel=1e-5)
    loss.backward()
    assert student.grad.isfinite().all()
