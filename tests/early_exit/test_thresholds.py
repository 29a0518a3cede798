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

COSTS = ExitCosts(trunk=(100, 200, 300, 400), heads=(10, 20, 30))


def make_decisions(images: int, exits: int, seed: int = 0) -> ExitDecisions:
    """Exits that are right more often where they are surer, and where they are deeper."""
    rng = np.random.default_rng(seed)
    hard = rng.uniform(0, 1, images)
    depth = (1 + np.arange(exits + 1)) / (exits + 1)
    correct = rng.uniform(0, 1, (images, exits + 1)) < 1 - hard[:, None] * (1.3 - depth)
    noise = rng.uniform(0, 0.5, (images, exits))
    return ExitDecisions((0.5 * (1 - hard[:, None]) + noise).astype(np.float32), correct)


def exit_costs(exits: int) -> ExitCosts:
    return ExitCosts((*COSTS.trunk[:exits], 400), COSTS.heads[:exits])


def by_hand(decisions, costs, thresholds):
    """(correct images, multiply-adds of all), image by image."""
    hits = macs = 0
    for confidence, correct in zip(decisions.confidence, decisions.correct, strict=True):
        heads = 0
        for k, t in enumerate(thresholds):
            heads += 0 if t is None else costs.heads[k]
            if t is not None and confidence[k] >= np.float32(t):
                break
        else:
            k = len(thresholds)
        hits, macs = hits + bool(correct[k]), macs + costs.trunk[k] + heads
    return hits, macs


def every_threshold(column):
    """A threshold between any two confidences, and below all."""
    values = [0.0, *sorted({float(c) for c in column})]
    return [None, *((a + b) / 2 for a, b in pairwise(values))]


@pytest.mark.parametrize(("images", "exits"), [(30, 1), (25, 2), (9, 3)])
@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
def test_nothing_is_cheaper(images, exits, loss):
    decisions, costs = make_decisions(images, exits), exit_costs(exits)
    outcome = threshold_outcome(decisions, costs, calibrate_thresholds(decisions, costs, loss))
    least = decisions.correct[:, -1].sum() - loss * images - 1e-6
    tried = (
        by_hand(decisions, costs, t) for t in product(*map(every_threshold, decisions.confidence.T))
    )
    best = min((macs, -correct) for correct, macs in tried if correct >= least)
    assert (round(outcome.macs * images), -round(outcome.accuracy * images)) == best


@given(st.integers(1, 3), st.integers(0, 999), st.sampled_from([0.0, 0.005, 0.01, 0.02, 0.05]))
@settings(max_examples=20, deadline=None)
def test_loses_no_more_than_allowed_and_never_pays_for_it(exits, seed, loss):
    decisions, costs = (
        make_decisions(200, exits, seed),
        ExitCosts((*range(1, exits + 1), 99), (1,) * exits),
    )
    outcome = threshold_outcome(decisions, costs, calibrate_thresholds(decisions, costs, loss))
    assert outcome.accuracy >= decisions.correct[:, -1].mean() - loss - 1e-9
    assert outcome.macs <= 99
    looser = threshold_outcome(
        decisions, costs, calibrate_thresholds(decisions, costs, loss + 0.03)
    )
    assert looser.macs <= outcome.macs


def test_outcome_equals_counting_by_hand():
    decisions, thresholds = make_decisions(50, 3), (0.6, None, 0.4)
    correct, macs = by_hand(decisions, COSTS, thresholds)
    outcome = threshold_outcome(decisions, COSTS, thresholds)
    assert outcome.accuracy == pytest.approx(correct / 50)
    assert outcome.macs == pytest.approx(macs / 50)
    assert sum(outcome.shares) == pytest.approx(1)
    assert outcome.shares[1] == 0


def test_all_heads_on_the_way_are_paid():
    assert COSTS.per_exit((0.5, 0.5, 0.5)) == [110, 230, 360, 460]
    assert COSTS.per_exit((None, 0.5, None)) == [100, 220, 320, 420]


def test_a_perfect_first_exit_takes_all():
    decisions = ExitDecisions(np.full((8, 2), 1, np.float32), np.ones((8, 3), bool))
    chosen = calibrate_thresholds(decisions, exit_costs(2), 0.0)
    assert chosen[0] <= 1
    assert threshold_outcome(decisions, exit_costs(2), chosen).macs == 110


def test_useless_exits_are_left_out_head_and_all():
    confidence = np.random.default_rng(0).uniform(0, 1, (50, 2)).astype(np.float32)
    correct = np.repeat([[False, False, True]], 50, 0)
    assert calibrate_thresholds(ExitDecisions(confidence, correct), exit_costs(2), 0.0) == (
        None,
        None,
    )


def test_rounding_moves_no_image():
    decisions = make_decisions(300, 3)
    steps = np.diff(np.sort(decisions.confidence, axis=0), axis=0).min()
    thresholds = calibrate_thresholds(decisions, COSTS, 0.05)
    noise = np.random.default_rng(1).uniform(-0.4, 0.4, decisions.confidence.shape) * steps
    moved = ExitDecisions((decisions.confidence + noise).astype(np.float32), decisions.correct)
    assert threshold_outcome(moved, COSTS, thresholds) == threshold_outcome(
        decisions, COSTS, thresholds
    )


def test_eight_exits_are_tried_and_no_more():
    decisions = make_decisions(40, 8)
    costs = ExitCosts(tuple(range(1, 10)), (0,) * 8)
    assert threshold_outcome(decisions, costs, calibrate_thresholds(decisions, costs, 0.1)).macs < 9
    with pytest.raises(ConfigError, match="9 exits are too many"):
        calibrate_thresholds(make_decisions(40, 9), ExitCosts(tuple(range(1, 11)), (0,) * 9), 0.1)


@pytest.mark.parametrize("loss", [-0.01, 1.0, float("nan")])
def test_a_loss_that_is_none(loss):
    with pytest.raises(ConfigError, match="from 0 to below 1"):
        calibrate_thresholds(make_decisions(10, 2), exit_costs(2), loss)


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


@pytest.mark.parametrize("threshold", [0.9, 0.1, 1.0])
def test_an_image_leaves_at_the_confidence_of_the_threshold(threshold):
    """As the network leaves, in which a threshold is a float32."""
    reached = np.float32(threshold)
    confidence = np.array([[reached], [np.nextafter(reached, np.float32(0))]])
    decisions = ExitDecisions(confidence, np.array([[True, False], [False, True]]))
    outcome = threshold_outcome(decisions, exit_costs(1), [threshold])
    assert outcome.shares == (0.5, 0.5)
    assert outcome.accuracy == 1
