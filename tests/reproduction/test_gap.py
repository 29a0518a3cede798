"""Our figure against a published one."""

import numpy as np
import pytest
from scipy import stats

from selfdistill.functional.statistics import Significance
from selfdistill.reproduction.gap import ReportedGap, measured_value, reported_gap
from selfdistill.reproduction.reported_value import ReportedValue

draw = np.random.default_rng(0)


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
@pytest.mark.parametrize(("n", "m"), [(3, 3), (3, 8), (10, 4)])
def test_equals_welch_of_scipy(shift, n, m):
    a, b = draw.normal(78 + shift, 0.3, n), draw.normal(78, 0.5, m)
    reproduced, published = measured_value(a.tolist()), measured_value(b.tolist())
    want = stats.ttest_ind(a, b, equal_var=False)
    low, high = want.confidence_interval(0.95)
    gap = reported_gap(reproduced, published)
    assert gap.difference == pytest.approx((low + high) / 2)
    assert gap.half_width == pytest.approx((high - low) / 2)
    assert (gap.significance is Significance.INCONCLUSIVE) == (want.pvalue >= 0.05)


def test_a_figure_without_a_spread_is_one_more_run():
    """Student's prediction interval: how far a further draw may lie from the mean of four."""
    reproduced = ReportedValue(78.0, 0.5, 4)
    gap = reported_gap(reproduced, ReportedValue(79.0))
    half_width = stats.t.ppf(0.975, 3) * 0.5 * (1 + 1 / 4) ** 0.5
    assert gap.half_width == pytest.approx(half_width)
    assert gap.significance is Significance.INCONCLUSIVE
    assert reported_gap(reproduced, ReportedValue(80.0)).significance is Significance.SIGNIFICANT


def test_one_draw_in_twenty_lies_outside():
    """Of many draws of the same distribution, with three runs of ours and one published."""
    runs = draw.normal(0, 1, (2000, 4))
    outside = [
        reported_gap(measured_value(run[:3].tolist()), ReportedValue(run[3])).significance
        is Significance.SIGNIFICANT
        for run in runs
    ]
    assert np.mean(outside) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(
    "reproduced",
    [ReportedValue(78.0, None, 1), ReportedValue(78.0, 0.1, 2), ReportedValue(78.0, 0.0, 3)],
)
def test_too_few_seeds_say_nothing(reproduced):
    gap = reported_gap(reproduced, ReportedValue(70.0, 0.1, 3))
    assert gap == ReportedGap(8.0, None, Significance.UNDERPOWERED)
