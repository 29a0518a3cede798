"""Draws by class: of the right class, and uniform."""

import pytest
import torch
from scipy import stats

from selfdistill.core.keyed_random import bits
from selfdistill.modules.class_draws import ClassDraws

UNEVEN = torch.tensor([7] * 5 + [-2] * 1 + [9] * 12 + [7] * 3 + [4] * 9)


def drawn(kind: str, index: torch.Tensor, count: int) -> torch.Tensor:
    numbers = bits(3, 5, index[:, None], torch.arange(count))
    return getattr(ClassDraws(UNEVEN), kind)(index[:, None], numbers)


def test_draws_keep_to_their_class():
    index = torch.arange(len(UNEVEN))
    others = drawn("other", index, 200)
    assert (UNEVEN[others] != UNEVEN[index][:, None]).all()
    same = drawn("same", index, 200)
    assert (UNEVEN[same] == UNEVEN[index][:, None]).all()


@pytest.mark.parametrize("anchor", [0, 5, 6, 29])  # one image of each class
@pytest.mark.parametrize("kind", ["same", "other"])
def test_draws_are_uniform(kind, anchor):
    images = drawn(kind, torch.tensor([anchor]), 40_000)
    alike = UNEVEN[anchor] == UNEVEN
    pool = (alike if kind == "same" else ~alike).nonzero().flatten()
    counts = torch.bincount(images.flatten(), minlength=len(UNEVEN))
    assert counts.sum() == counts[pool].sum() == 40_000
    if len(pool) > 1:
        assert stats.chisquare(counts[pool].numpy()).pvalue > 1e-3
