import numpy as np
from made_run import made_run

from selfdistill.reporting.curves import (
    MOST_POINTS,
    families,
    thinned,
    total,
)
from selfdistill.reporting.run_data import read_run


def test_long_curves_are_thinned_to_means():
    x = np.arange(10_000.0)
    short_x, short_y = thinned(x, 3 * x + 1)
    assert len(short_x) == MOST_POINTS
    np.testing.assert_allclose(short_y, 3 * short_x + 1)
    np.testing.assert_allclose(short_y.mean(), (3 * x + 1).mean())


def test_short_curves_stay_but_for_what_is_not_finite():
    x, y = thinned(np.arange(4.0), np.array([1, np.nan, np.inf, 2]))
    assert x.tolist() == [0, 3]
    assert y.tolist() == [1, 2]


def test_terms_are_grouped_by_what_stands_before_the_number(tmp_path):
    run = read_run(made_run(tmp_path / "run"))
    groups = families(run, "losses")
    assert list(groups) == ["task", "soft", "mutual", "self"]
    assert [c.stage for c in groups["task"]] == [None, 1, 2, 3]
    assert list(families(run, "monitors")) == ["mutual", "self", "score/mutual"]


def test_total_is_the_sum_of_all_terms(tmp_path):
    run = read_run(made_run(tmp_path / "run"))
    want = [sum(entry["losses"].values()) for entry in run.steps]
    np.testing.assert_allclose(total(run).y, want)
