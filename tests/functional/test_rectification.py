"""The share of a feature that a ReLU takes, in closed form."""

import torch

from selfdistill.functional.rectification import negative_share


def test_share_of_the_mean_square():
    assert negative_share(torch.tensor([-3.0, 4.0])).item() == torch.tensor(9 / 25).item()
    assert negative_share(torch.tensor([0.0, 2.0])) == 0
    assert negative_share(torch.tensor([-1.0, -2.0])) == 1


def test_nothing_has_no_negative_share():
    assert negative_share(torch.zeros(2, 3)) == 0
