"""Stages of two networks side by side."""

from functools import partial

import pytest
import torch
from torch import nn

from selfdistill.core import ConfigError
from selfdistill.modules.pairs import (
    check_layouts,
    check_positions,
    paired_shapes,
    pooled_pairs,
    taps_by_number,
)
from selfdistill.taps import Taps


def taps(widths: list[int], stride: int, side: int = 8) -> Taps:
    channels = [3, *widths]
    stages = [nn.Conv2d(c, w, 3, stride, 1) for c, w in zip(channels, widths, strict=False)]
    names = [str(i) for i in range(len(widths))]
    return Taps(nn.Sequential(*stages), names, example=torch.zeros(2, 3, side, side))


def test_shapes_stand_side_by_side():
    assert paired_shapes(taps([4, 5], 2), taps([6, 7], 1)) == [
        ((4, 4, 4), (6, 8, 8)),
        ((5, 2, 2), (7, 8, 8)),
    ]


def test_unequal_numbers_are_told_with_the_way_out():
    with pytest.raises(ConfigError, match=r"student has 2 taps and teacher 3.*--teacher-taps"):
        paired_shapes(taps([4, 5], 2), taps([4, 5, 6], 2))


def test_single_cells_have_no_positions():
    one, four = taps([4], 2, side=2), taps([4], 1, side=2)
    with pytest.raises(ConfigError, match="larger images"):
        check_positions(paired_shapes(one, four))
    check_positions(paired_shapes(four, four))


@pytest.mark.parametrize(
    ("from_deepest", "first", "second"),
    [(True, ("1", "2"), ("0", "1")), (False, ("0", "0"), ("1", "1"))],
)
def test_taps_are_counted_from_either_end(from_deepest, first, second):
    student, teacher = taps([4, 5], 2), taps([4, 5, 6], 2)
    count = partial(taps_by_number, student, teacher, from_deepest=from_deepest)
    assert (count(1), count(2)) == (first, second)
    for tap in (0, 3):
        with pytest.raises(ConfigError, match=r"taps up to 2; give 1 … 2"):
            count(tap)


@pytest.mark.parametrize("column", [(4, 7, 1), (4, 17, 1), (4, 2, 1)])
def test_a_column_of_tokens_is_no_map(column):
    for pair in ((column, (4, 8, 8)), ((4, 8, 8), column)):
        with pytest.raises(ConfigError, match=r"tokens, whose places.*--teacher-taps"):
            check_layouts(*pair)


def test_what_compares_by_place():
    for pair in (((4, 7, 1), (5, 7, 1)), ((4, 2, 1), (4, 4, 2)), ((4, 1, 1), (4, 8, 8))):
        check_layouts(*pair)
        check_layouts(*pair[::-1])


def test_maps_are_pooled_in_pairs():
    x, y = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    pairs = pooled_pairs({"a": x, "b": y}, {"c": y, "d": x})
    assert [(a.shape, b.shape) for a, b in pairs] == [
        ((2, 3, 4, 4), (2, 5, 4, 4)),
        ((2, 5, 4, 4), (2, 3, 4, 4)),
    ]
    assert pairs[0][1] is y
