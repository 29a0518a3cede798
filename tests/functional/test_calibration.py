import math

import pytest
import torch

from selfdistill.functional.calibration import expected_calibration_error

NAN = float("nan")


def test_gaps_weigh_by_their_samples():
    table = torch.tensor([[10, 0.2, 0.3], [0, NAN, NAN], [30, 0.9, 0.7]])
    assert expected_calibration_error(table) == pytest.approx(0.25 * 0.1 + 0.75 * 0.2)


def test_one_who_is_right_as_often_as_sure_has_none():
    assert expected_calibration_error(torch.tensor([[4, 0.25, 0.25], [4, 0.75, 0.75]])) == 0


def test_nothing_is_known_of_nothing():
    assert math.isnan(expected_calibration_error(torch.tensor([[0, NAN, NAN]])))
