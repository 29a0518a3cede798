"""The ramp-up of a weight against its published formula."""

import math

import pytest
import torch

from selfdistill.functional.schedules import sigmoid_rampup


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_equals_the_formula(fraction):
    value = sigmoid_rampup(torch.tensor(fraction)).item()
    assert value == pytest.approx(math.exp(-5 * (1 - fraction) ** 2), rel=1e-6)


def test_is_constant_outside_of_0_to_1():
    values = sigmoid_rampup(torch.tensor([-1.0, 0.0, 1.0, 7.0]))
    assert torch.equal(values[[0, 3]], values[[1, 2]])
