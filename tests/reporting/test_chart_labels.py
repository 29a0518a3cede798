from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfdistill.reporting.charts.labels import spread

targets_ = st.lists(st.floats(0, 100), min_size=1, max_size=7)


@given(targets_)
def test_labels_keep_their_distance_and_order(targets):
    positions = spread(targets, 10, 0, 100)
    order = sorted(range(len(targets)), key=lambda i: targets[i])
    steps = [positions[b] - positions[a] for a, b in pairwise(order)]
    assert all(step >= 10 - 1e-9 for step in steps)
    assert min(positions) >= -1e-9
    assert max(positions) <= 100 + 1e-9


def test_labels_with_room_stay():
    assert spread([80.0, 20, 50], 10, 0, 100) == [80, 20, 50]


def test_labels_that_meet_share_the_way():
    assert spread([50.0, 50], 10, 0, 100) == pytest.approx([45, 55])
