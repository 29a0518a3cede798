from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from selfdistill.reporting.figure_style import palette, spread

places = st.lists(st.floats(0, 100), min_size=1, max_size=7)


@given(places)
def test_labels_keep_their_distance_and_order(wanted):
    found = spread(wanted, 10, 0, 100)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    steps = [found[b] - found[a] for a, b in pairwise(order)]
    assert all(step >= 10 - 1e-9 for step in steps)
    assert min(found) >= -1e-9
    assert max(found) <= 100 + 1e-9


def test_labels_with_room_stay():
    assert spread([80.0, 20, 50], 10, 0, 100) == [80, 20, 50]


def test_labels_that_meet_share_the_way():
    assert spread([50.0, 50], 10, 0, 100) == pytest.approx([45, 55])


@pytest.mark.parametrize("stages", [0, 1, 3, 8])
def test_deeper_is_darker_on_white_and_lighter_on_black(stages):
    for theme, way in (("light", -1), ("dark", 1)):
        colors = palette(stages)[theme]
        assert len(colors) == stages
        light = [
            sum(w * c for w, c in zip((0.21, 0.72, 0.07), to_rgb(x), strict=True)) for x in colors
        ]
        assert light == sorted(light, reverse=way < 0)
