"""What was measured of exits, as a file."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.core import ArtifactError
from selfdistill.costs.macs import NetworkCost
from selfdistill.functional.statistics import Interval, PairedDifference, Significance
from selfdistill.records.exit_measurements import (
    FILE,
    ExitMeasurement,
    ExitMeasurements,
    from_csv,
    read_exit_measurements,
)

PASSES = [("cpu", 1), ("cuda", 32)]
ABOUT = {"cost": "actual", "epoch": 3, "threads": 2, "machine": "a; b, 2 threads"}
ABOUT |= {"torch": "2.10", "baseline": "runs/ce"}
fractions = st.floats(0, 1)
splits = st.sampled_from(["val", "test"])


def difference(mean: float, reach: float) -> PairedDifference:
    interval = Interval(mean - reach, mean + reach)
    significance = Significance.INCONCLUSIVE if interval.contains(0) else Significance.SIGNIFICANT
    return PairedDifference(mean, interval, significance)


rows = st.builds(
    ExitMeasurement,
    st.sampled_from(["exit1", "exit2", "student"]),
    st.builds(NetworkCost, st.integers(0), st.integers(0)),
    st.none() | st.integers(0),
    st.dictionaries(st.sampled_from(PASSES), st.integers(1, 10**6).map(lambda n: n / 1000)),
    st.dictionaries(splits, fractions),
    st.dictionaries(splits, fractions),
    st.dictionaries(splits, st.builds(difference, st.floats(-1, 1), st.floats(0, 1))),
    st.booleans(),
)
baselines = rows.map(
    lambda row: ExitMeasurement("baseline", row.cost, row.size, row.seconds, row.scores, row.ece)
)
measurements = st.builds(
    ExitMeasurements,
    st.lists(rows, min_size=1, max_size=3),
    st.none() | baselines,
    st.just(PASSES),
    st.just(ABOUT),
    st.lists(st.text("abc ,", min_size=1), max_size=2),
    st.sampled_from(["accuracy", "miou"]),
)


@settings(max_examples=40, deadline=None)
@given(measurements)
def test_csv_comes_back(record):
    again = from_csv(record.to_csv())
    assert again == record


def test_the_split_to_choose_by():
    def measured(*scores):
        rows = [ExitMeasurement("exit1", NetworkCost(1, 1), None, {}, s, {}) for s in scores]
        return ExitMeasurements(rows, None, [], ABOUT, [], "accuracy").choosing_split

    assert measured({"val": 0.5, "test": 0.5}) == "val"
    assert measured({"val": 0.5, "test": 0.5}, {"test": 0.5}) == "test"


@pytest.mark.parametrize("text", ["", "predictor\nexit1\n", "a,b\n1\n"])
def test_a_table_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ArtifactError, match=r"exits-measured\.csv is no table of measured exits"):
        read_exit_measurements(tmp_path)
