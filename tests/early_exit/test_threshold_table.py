"""The rows of the threshold table and their csv."""

import csv
import io

import numpy as np
import pytest

from selfdistill.core import DataError
from selfdistill.early_exit.threshold_table import (
    HeldOutDecisions,
    anytime_csv,
    calibrated_row,
    held_out_decisions,
    threshold_row,
)
from selfdistill.early_exit.thresholds import ExitCosts, ExitDecisions
from selfdistill.recipe.build_method import build_method

SURE = ExitDecisions(np.array([[0.9], [0.2]], np.float32), np.array([[True, True], [False, True]]))
UNSURE = ExitDecisions(
    np.array([[0.1], [0.2]], np.float32), np.array([[True, True], [True, False]])
)
DECISIONS = HeldOutDecisions(
    ("exit1",), ExitCosts((100, 400), (20,)), {"val": SURE, "test": UNSURE}
)


def test_chosen_on_validation_and_told_of_test():
    row = calibrated_row(DECISIONS, 0.0)
    assert row.thresholds == (pytest.approx(0.55),)
    assert row.outcomes["val"].macs == (120 + 420) / 2
    assert row.reported == row.outcomes["test"]
    assert row.reported.shares == (0.0, 1.0)


def test_the_csv():
    rows = [threshold_row(DECISIONS, (None,)), calibrated_row(DECISIONS, 0.0)]
    rows = [row._replace(seconds=s) for row, s in zip(rows, (0.004, 0.003), strict=True)]
    student, chosen = csv.DictReader(io.StringIO(anytime_csv(rows, ["exit1"], "here")))
    assert student["threshold_exit1"] == student["max_loss"] == ""
    assert [student["macs_ratio"], student["latency_ratio"]] == ["1.0", "1.0"]
    assert [chosen["macs"], chosen["macs_ratio"]] == ["420", "1.05"]
    assert [chosen["latency_ms"], chosen["latency_ratio"], chosen["machine"]] == [
        "3.0",
        "0.75",
        "here",
    ]
    assert [chosen["val_accuracy"], chosen["test_accuracy"]] == ["1.0", "0.5"]
    assert [chosen["images"], chosen["share_exit1"], chosen["share_student"]] == [
        "test",
        "0.0",
        "1.0",
    ]


def test_without_validation_images_nothing_is_chosen():
    with pytest.raises(DataError, match="held none out; give them by --threshold"):
        calibrated_row(DECISIONS._replace(splits={"test": UNSURE}), 0.01)


def test_nothing_to_evaluate_by(tiny_net, tiny_task):
    class Data:
        name, val, test = "made", None, None

    method = build_method("exits", tiny_net, tiny_task, "auto", {}).eval()
    with pytest.raises(DataError, match="'made' has neither validation nor test images"):
        held_out_decisions(method, Data())
