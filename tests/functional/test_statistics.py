"""Against scipy, and against what the intervals promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from selfdistill.functional.statistics import (
    Significance,
    bootstrap_interval,
    mean_std,
    paired,
    t_interval,
)

OURS = [0.701, 0.713, 0.697, 0.722, 0.709]
THEIRS = [0.690, 0.705, 0.699, 0.703, 0.695]


def test_mean_and_std_are_numpys():
    mean, std = mean_std(OURS)
    assert mean == pytest.approx(np.mean(OURS))
    assert std == pytest.approx(np.std(OURS, ddof=1))
    assert mean_std([0.5]) == (0.5, None)


def test_t_interval_is_scipys():
    found = paired(OURS, THEIRS)
    want = stats.ttest_rel(OURS, THEIRS).confidence_interval(0.95)
    assert found.t == pytest.approx((want.low, want.high))
    assert found.mean == pytest.approx(np.mean(OURS) - np.mean(THEIRS))


def test_bootstrap_interval_is_scipys_within_chance():
    values = np.subtract(OURS, THEIRS)
    want = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, random_state=1
    ).confidence_interval
    assert bootstrap_interval(values.tolist()) == pytest.approx((want.low, want.high), abs=3e-4)


def test_the_same_values_give_the_same_interval():
    assert bootstrap_interval(OURS) == bootstrap_interval(OURS)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_verdicts_are_the_p_values_where_the_bootstrap_is_narrower(n):
    draw = np.random.default_rng(n)
    for _ in range(20):
        ours, theirs = draw.normal(0.3, 1, n).tolist(), draw.normal(0, 1, n).tolist()
        found = paired(ours, theirs)
        significant = stats.ttest_rel(ours, theirs).pvalue < 0.05
        narrower = found.t.low <= found.bootstrap.low <= found.bootstrap.high <= found.t.high
        if narrower:
            assert (found.verdict is Significance.BEYOND) == significant


@pytest.mark.slow
@pytest.mark.parametrize(("n", "misses"), [(3, 0.25), (5, 0.15)])
def test_how_often_pure_noise_is_believed(n, misses):
    """The bootstrap's share is what the documentation says of it; t's is the promised one."""
    draws = np.random.default_rng(0).normal(size=(2000, n)).tolist()
    found = [paired(draw, [0.0] * n) for draw in draws]
    assert np.mean([not f.bootstrap.holds(0) for f in found]) == pytest.approx(misses, abs=0.02)
    believed = np.mean([f.verdict is Significance.BEYOND for f in found])
    assert believed == pytest.approx(0.05, abs=0.015)


def test_three_of_one_sign_are_not_enough():
    """The bootstrap interval of differences of one sign never holds zero; t knows better."""
    found = paired([0.01, 0.02, 0.06], [0.0, 0.0, 0.0])
    assert not found.bootstrap.holds(0)
    assert found.verdict is Significance.WITHIN


def test_fewer_than_three_pairs_say_nothing():
    assert paired([0.9, 0.91], [0.1, 0.11]).verdict is Significance.OPEN
    one = paired([0.9], [0.1])
    assert (one.n, one.t, one.bootstrap, one.verdict) == (1, None, None, Significance.OPEN)


def test_differences_without_a_spread():
    assert paired([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]).verdict is Significance.WITHIN
    assert paired([0.51, 0.61, 0.71], [0.5, 0.6, 0.7]).verdict is Significance.OPEN


def test_a_skew_that_t_does_not_see_is_seen_by_the_bootstrap():
    values = [-0.4] + [-0.001] * 30 + [0.8] * 4
    t, bootstrap = t_interval(values), bootstrap_interval(values)
    assert abs(bootstrap.high - np.mean(values)) > abs(bootstrap.low - np.mean(values))
    assert t.high - np.mean(values) == pytest.approx(np.mean(values) - t.low)


@given(
    st.lists(st.floats(0, 1, allow_subnormal=False), min_size=3, max_size=6),
    st.floats(0.1, 10),
)
def test_turns_with_its_arguments(ours, scale):
    theirs = [scale * value for value in reversed(ours)]
    there, back = paired(ours, theirs), paired(theirs, ours)
    assert there.t == pytest.approx((-back.t.high, -back.t.low), abs=1e-12)
    assert there.verdict == back.verdict


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="no pairs"):
        paired([], [])
    with pytest.raises(ValueError, match="shorter"):
        paired([0.1, 0.2], [0.1])
