"""Reliability tables as a file."""

import csv
import io

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.functional.calibration import expected_calibration_error
from selfdistill.records.calibration import CalibrationTable, from_csv, to_csv

names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=9)
fractions = st.floats(0, 1)
bins = st.lists(st.tuples(st.integers(0, 9999), fractions, fractions), min_size=1, max_size=15)
tables = bins.map(
    lambda rows: CalibrationTable.from_tensor(torch.tensor(rows, dtype=torch.float64))
)
calibrations = st.dictionaries(
    st.sampled_from(["val", "test"]), st.dictionaries(names, tables, min_size=1, max_size=3)
)


@settings(max_examples=40, deadline=None)
@given(calibrations)
def test_csv_comes_back(records):
    again = from_csv(to_csv(records))
    assert {s: list(t) for s, t in again.items()} == {s: list(t) for s, t in records.items()}
    for split, by_predictor in records.items():
        for predictor, table in by_predictor.items():
            for column, values in vars(again[split][predictor]).items():
                np.testing.assert_array_equal(values, getattr(table, column))


def test_a_row_for_each_bin():
    nan = float("nan")
    table = CalibrationTable.from_tensor(torch.tensor([[0, nan, nan], [4, 0.75, 0.5]]))
    rows = list(csv.DictReader(io.StringIO(to_csv({"val": {"exit1": table}}))))
    assert [row["images"] for row in rows] == ["0", "4"]
    assert list(rows[0].values()) == ["val", "exit1", "0.0", "0.5", "0", "", ""]
    assert list(rows[1].values()) == ["val", "exit1", "0.5", "1.0", "4", "0.75", "0.5"]


def test_the_error_is_that_of_the_tensor():
    bins = torch.tensor([[3, 0.2, 0.5], [0, 0.0, 0.0], [5, 0.9, 0.7]])
    error = CalibrationTable.from_tensor(bins).error
    assert error == expected_calibration_error(bins.double())
