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
    threshold_warnings,
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


def decisions_of(val, test, costs=((100, 400), (20,))) -> HeldOutDecisions:
    """One exit that is sure of all images; by split how many of ten it and the student get."""
    splits = {}
    for split, right in {"val": val, "test": test}.items():
        correct = np.arange(10)[:, None] < np.array(right)[None]
        splits[split] = ExitDecisions(np.full((10, 1), 0.9, np.float32), correct)
    return HeldOutDecisions(("exit1",), ExitCosts(*costs), splits)


@pytest.mark.parametrize(
    ("test", "max_loss", "warned"),
    [((5, 6), 0.0, "10.0 points where 0 were allowed"), ((5, 6), 0.1, ""), ((6, 6), 0.0, "")],
)
def test_a_loss_on_the_test_images_beyond_what_was_allowed(test, max_loss, warned):
    decisions = decisions_of(val=(7, 7), test=test)
    rows = [threshold_row(decisions, (None,)), calibrated_row(decisions, max_loss)]
    warnings = threshold_warnings(rows, decisions)
    assert len(warnings) == bool(warned)
    assert all(warned in text and "few, or of another kind" in text for text in warnings)


@pytest.mark.parametrize(
    ("val", "test", "costs", "better"),
    [
        ((8, 7), (6, 5), ((100, 400), (20,)), True),
        ((8, 7), (5, 5), ((100, 400), (20,)), False),
        ((7, 7), (6, 5), ((100, 400), (20,)), False),
        ((8, 7), (6, 5), ((390, 400), (20,)), False),
    ],
)
def test_an_exit_that_is_better_for_all_images(val, test, costs, better):
    decisions = decisions_of(val, test, costs)
    warnings = threshold_warnings([threshold_row(decisions, (None,))], decisions)
    assert len(warnings) == better
    for text in warnings:
        assert "exit1 for all images is better than the student (+10.0 points on val" in text
        assert "at 30% of its multiply-adds; selfdistill export --exit exit1" in text
