import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.core import DataError
from selfdistill.data.hold_out import hold_out_fraction, stratified_order, subsample
from selfdistill.data.in_memory import InMemoryImages

label_lists = st.lists(st.integers(0, 4), min_size=2, max_size=60)


def images(labels: list[int]) -> InMemoryImages:
    """One pixel each, whose value is the place."""
    places = torch.arange(len(labels), dtype=torch.uint8)
    return InMemoryImages(places[:, None, None, None], torch.tensor(labels))


@settings(max_examples=50, deadline=None)
@given(label_lists, st.data())
def test_every_beginning_keeps_the_shares(labels, data):
    order = stratified_order(torch.tensor(labels), "test")
    assert sorted(order.tolist()) == list(range(len(labels)))
    k = data.draw(st.integers(0, len(labels)))
    for label in set(labels):
        count = sum(labels[i] == label for i in order[:k].tolist())
        assert abs(count - k * labels.count(label) / len(labels)) <= len(set(labels)) / 2 + 1


def test_equal_classes_are_split_equally():
    train, val = hold_out_fraction(images([0, 1, 2] * 20), 0.1)
    assert torch.bincount(val.labels).tolist() == [2, 2, 2]
    assert torch.bincount(train.labels).tolist() == [18, 18, 18]
    together = torch.cat([train.images, val.images]).flatten().tolist()
    assert sorted(together) == list(range(60))


def test_split_is_the_same_each_time_and_not_sorted_by_place():
    first, second = (hold_out_fraction(images([0, 1] * 30), 0.2)[1].images for _ in range(2))
    assert torch.equal(first, second)
    assert first.flatten().tolist() != list(range(12))


def test_a_single_picture_of_a_class_stays_in_training():
    train, _ = hold_out_fraction(images([0] * 9 + [1]), 0.3)
    assert train.labels.unique().tolist() == [0, 1]


def test_no_share_holds_out_nothing():
    full = images([0, 1])
    assert hold_out_fraction(full, 0) == (full, None)


@pytest.mark.parametrize(("share", "part"), [(0.01, "no validation"), (0.99, "no training")])
def test_a_share_that_leaves_nothing(share, part):
    with pytest.raises(
        DataError, match=f"{part} image; give 0 or a fraction between 0.17 and 0.83"
    ):
        hold_out_fraction(images([0, 1] * 3), share)


def test_limit():
    full = images([0, 0, 1] * 10)
    assert torch.bincount(subsample(full, 6).labels).tolist() == [4, 2]
    assert subsample(full, 31) is full
    assert subsample(full, None) is full


@given(st.integers(0, 40), st.integers(1, 50))
def test_spread_images_are_of_all_classes_alike(count, most):
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None]
    found = InMemoryImages(pixels, torch.arange(count) * 4 // max(count, 1)).spread(most)
    places = found.fetch(torch.arange(len(found))).flatten().tolist()
    assert len(places) == min(count, most)
    gaps = np.diff([*places, count])
    assert not len(gaps) or (places[0] == 0 and gaps.max() - gaps.min() <= 1)
