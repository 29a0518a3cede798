"""Thresholds against brute force in plain Python, closed forms, and what they must never do."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.core import ConfigError
from selfdistill.early_exit.thresholds import (
    ExitCosts,
    ExitDecisions,
    as_thresholds,
    calibrate_thresholds,
    threshold_outcome,
)

PRICES = ExitCosts(trunk=(100, 200, 300, 400), heads=(10, 20, 30))


def made(images: int, exits: int, seed: int = 0) -> ExitDecisions:
    """Exits that are right more often where they are surer, and where they are deeper."""
    rng = np.random.default_rng(seed)
    hard = rng.uniform(0, 1, images)
    depth = (1 + np.arange(exits + 1)) / (exits + 1)
    right = rng.uniform(0, 1, (images, exits + 1)) < 1 - hard[:, None] * (1.3 - depth)
    noise = rng.uniform(0, 0.5, (images, exits))
    return ExitDecisions((0.5 * (1 - hard[:, None]) + noise).astype(np.float32), right)


def prices(exits: int) -> ExitCosts:
    return ExitCosts((*PRICES.trunk[:exits], 400), PRICES.heads[:exits])


def by_hand(watched, costs, thresholds):
    """(right images, multiply-adds of all), image by image."""
    right = macs = 0
    for sure, correct in zip(watched.confidence, watched.right, strict=True):
        heads = 0
        for k, t in enumerate(thresholds):
            heads += 0 if t is None else costs.heads[k]
            if t is not None and sure[k] >= np.float32(t):
                break
        else:
            k = len(thresholds)
        right, macs = right + bool(correct[k]), macs + costs.trunk[k] + heads
    return right, macs


def every_threshold(column):
    """A threshold between any two confidences, and below all."""
    values = [0.0, *sorted({float(c) for c in column})]
    return [None, *((a + b) / 2 for a, b in pairwise(values))]


@pytest.mark.parametrize(("images", "exits"), [(30, 1), (25, 2), (9, 3)])
@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
def test_nothing_is_cheaper(images, exits, loss):
    watched, costs = made(images, exits), prices(exits)
    found = threshold_outcome(watched, costs, calibrate_thresholds(watched, costs, loss))
    least = watched.right[:, -1].sum() - loss * images - 1e-6
    tried = (
        by_hand(watched, costs, t) for t in product(*map(every_threshold, watched.confidence.T))
    )
    best = min((macs, -right) for right, macs in tried if right >= least)
    assert (round(found.macs * images), -round(found.accuracy * images)) == best


@given(st.integers(1, 3), st.integers(0, 999), st.sampled_from([0.0, 0.005, 0.01, 0.02, 0.05]))
@settings(max_examples=20, deadline=None)
def test_loses_no_more_than_allowed_and_never_pays_for_it(exits, seed, loss):
    watched, costs = made(200, exits, seed), ExitCosts((*range(1, exits + 1), 99), (1,) * exits)
    found = threshold_outcome(watched, costs, calibrate_thresholds(watched, costs, loss))
    assert found.accuracy >= watched.right[:, -1].mean() - loss - 1e-9
    assert found.macs <= 99
    more = threshold_outcome(watched, costs, calibrate_thresholds(watched, costs, loss + 0.03))
    assert more.macs <= found.macs


def test_outcome_equals_counting_by_hand():
    watched, thresholds = made(50, 3), (0.6, None, 0.4)
    right, macs = by_hand(watched, PRICES, thresholds)
    found = threshold_outcome(watched, PRICES, thresholds)
    assert found.accuracy == pytest.approx(right / 50)
    assert found.macs == pytest.approx(macs / 50)
    assert sum(found.shares) == pytest.approx(1)
    assert found.shares[1] == 0


def test_all_heads_on_the_way_are_paid():
    assert PRICES.leaving((0.5, 0.5, 0.5)) == [110, 230, 360, 460]
    assert PRICES.leaving((None, 0.5, None)) == [100, 220, 320, 420]


def test_a_perfect_first_exit_takes_all():
    watched = ExitDecisions(np.full((8, 2), 1, np.float32), np.ones((8, 3), bool))
    chosen = calibrate_thresholds(watched, prices(2), 0.0)
    assert chosen[0] <= 1
    assert threshold_outcome(watched, prices(2), chosen).macs == 110


def test_useless_exits_are_left_out_head_and_all():
    sure = np.random.default_rng(0).uniform(0, 1, (50, 2)).astype(np.float32)
    right = np.repeat([[False, False, True]], 50, 0)
    assert calibrate_thresholds(ExitDecisions(sure, right), prices(2), 0.0) == (None, None)


def test_rounding_moves_no_image():
    watched = made(300, 3)
    steps = np.diff(np.sort(watched.confidence, axis=0), axis=0).min()
    thresholds = calibrate_thresholds(watched, PRICES, 0.05)
    noise = np.random.default_rng(1).uniform(-0.4, 0.4, watched.confidence.shape) * steps
    moved = ExitDecisions((watched.confidence + noise).astype(np.float32), watched.right)
    assert threshold_outcome(moved, PRICES, thresholds) == threshold_outcome(
        watched, PRICES, thresholds
    )


def test_eight_exits_are_tried_and_no_more():
    watched = made(40, 8)
    costs = ExitCosts(tuple(range(1, 10)), (0,) * 8)
    assert threshold_outcome(watched, costs, calibrate_thresholds(watched, costs, 0.1)).macs < 9
    with pytest.raises(ConfigError, match="9 exits are too many"):
        calibrate_thresholds(made(40, 9), ExitCosts(tuple(range(1, 11)), (0,) * 9), 0.1)


@pytest.mark.parametrize("loss", [-0.01, 1.0, float("nan")])
def test_a_loss_that_is_none(loss):
    with pytest.raises(ConfigError, match="from 0 to below 1"):
        calibrate_thresholds(made(10, 2), prices(2), loss)


def test_one_threshold_for_all_or_one_each():
    assert as_thresholds(0.9, ["a", "b"]) == (0.9, 0.9)
    assert as_thresholds([None, 1], ["a", "b"]) == (None, 1.0)


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ([0.5], r"2 exits \(a, b\) and 1 thresholds"),
        (1.5, "above 0 and at most 1, not 1.5"),
        (0, "not 0;"),
        ([0.5, -1], "not -1;"),
        (float("nan"), "not nan"),
        ([None, None], "no image leaves early"),
    ],
)
def test_thresholds_that_are_none(given_, sentence):
    with pytest.raises(ConfigError, match=sentence):
        as_thresholds(given_, ["a", "b"])
