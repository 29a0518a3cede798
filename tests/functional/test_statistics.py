"""Against scipy, and against what the intervals promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from selfdistill.functional.statistics import (
    Significance,
    bootstrap_interval,
    holm,
    mean_difference,
    mean_std,
    t_interval,
)

SCORES = [0.701, 0.713, 0.697, 0.722, 0.709]
BASELINE = [0.690, 0.705, 0.699, 0.703, 0.695]


def test_mean_and_std_are_numpys():
    mean, std = mean_std(SCORES)
    assert mean == pytest.approx(np.mean(SCORES))
    assert std == pytest.approx(np.std(SCORES, ddof=1))
    assert mean_std([0.5]) == (0.5, None)


def test_t_interval_is_scipys():
    difference = mean_difference(SCORES, BASELINE)
    want = stats.ttest_rel(SCORES, BASELINE).confidence_interval(0.95)
    assert difference.t == pytest.approx((want.low, want.high))
    assert difference.mean == pytest.approx(np.mean(SCORES) - np.mean(BASELINE))


def test_p_value_is_scipys():
    want = stats.ttest_rel(SCORES, BASELINE).pvalue
    assert mean_difference(SCORES, BASELINE).p_value == pytest.approx(want)
    assert mean_difference([0.5], [0.4]).p_value is None
    assert mean_difference([0.5, 0.7], [0.4, 0.6]).p_value == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.001, 0.5))
def test_holm_rejects_what_its_steps_reject(p_values, level):
    k = len(p_values)
    rejected = set()
    for step, i in enumerate(sorted(range(k), key=lambda i: p_values[i])):
        if (k - step) * p_values[i] > level:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected


def test_holm_of_one_is_itself_and_of_none_nothing():
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_bootstrap_interval_is_scipys_within_chance():
    values = np.subtract(SCORES, BASELINE)
    want = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, random_state=1
    ).confidence_interval
    assert bootstrap_interval(values.tolist()) == pytest.approx((want.low, want.high), abs=3e-4)


def test_the_same_values_give_the_same_interval():
    assert bootstrap_interval(SCORES) == bootstrap_interval(SCORES)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_verdicts_are_the_p_values_where_the_bootstrap_is_narrower(n):
    draw = np.random.default_rng(n)
    for _ in range(20):
        scores, baseline = draw.normal(0.3, 1, n).tolist(), draw.normal(0, 1, n).tolist()
        difference = mean_difference(scores, baseline)
        significant = stats.ttest_rel(scores, baseline).pvalue < 0.05
        narrower = (
            difference.t.low
            <= difference.bootstrap.low
            <= difference.bootstrap.high
            <= difference.t.high
        )
        if narrower:
            assert (difference.significance is Significance.SIGNIFICANT) == significant


@pytest.mark.slow
@pytest.mark.parametrize(("n", "misses"), [(3, 0.25), (5, 0.15)])
def test_how_often_pure_noise_is_believed(n, misses):
    """The bootstrap's share is what the documentation says of it; t's is the promised one."""
    draws = np.random.default_rng(0).normal(size=(2000, n)).tolist()
    differences = [mean_difference(draw, [0.0] * n) for draw in draws]
    assert np.mean([not f.bootstrap.contains(0) for f in differences]) == pytest.approx(
        misses, abs=0.02
    )
    believed = np.mean([f.significance is Significance.SIGNIFICANT for f in differences])
    assert believed == pytest.approx(0.05, abs=0.015)


def test_three_of_one_sign_are_not_enough():
    """The bootstrap interval of differences of one sign never holds zero; t knows better."""
    difference = mean_difference([0.01, 0.02, 0.06], [0.0, 0.0, 0.0])
    assert not difference.bootstrap.contains(0)
    assert difference.significance is Significance.INCONCLUSIVE


def test_fewer_than_three_pairs_say_nothing():
    assert mean_difference([0.9, 0.91], [0.1, 0.11]).significance is Significance.UNDERPOWERED
    one = mean_difference([0.9], [0.1])
    assert (one.n, one.t, one.bootstrap, one.significance) == (
        1,
        None,
        None,
        Significance.UNDERPOWERED,
    )


def test_differences_without_a_spread():
    assert (
        mean_difference([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]).significance is Significance.INCONCLUSIVE
    )
    assert (
        mean_difference([0.51, 0.61, 0.71], [0.5, 0.6, 0.7]).significance
        is Significance.UNDERPOWERED
    )


def test_a_skew_that_t_does_not_see_is_seen_by_the_bootstrap():
    values = [-0.4] + [-0.001] * 30 + [0.8] * 4
    t, bootstrap = t_interval(values), bootstrap_interval(values)
    assert abs(bootstrap.high - np.mean(values)) > abs(bootstrap.low - np.mean(values))
    assert t.high - np.mean(values) == pytest.approx(np.mean(values) - t.low)


@given(
    st.lists(st.floats(0, 1, allow_subnormal=False), min_size=3, max_size=6),
    st.floats(0.1, 10),
)
def test_turns_with_its_arguments(scores, scale):
    baseline = [scale * value for value in reversed(scores)]
    forward, backward = mean_difference(scores, baseline), mean_difference(baseline, scores)
    assert forward.t == pytest.approx((-backward.t.high, -backward.t.low), abs=1e-12)
    assert forward.significance == backward.significance


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="no pairs"):
        mean_difference([], [])
    with pytest.raises(ValueError, match="shorter"):
        mean_difference([0.1, 0.2], [0.1])
