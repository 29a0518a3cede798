"""Which exit is taken: by name, by accuracy on validation images, by cost."""

from dataclasses import replace

import pytest

from selfdistill.core import ConfigError
from selfdistill.export.select_exit import best_tradeoff, select_exit
from selfdistill.records.exit_scores import ExitScore

ROWS = [
    ExitScore("exit1", 10, 100_000, 0.85, 0.99),
    ExitScore("exit2", 20, 200_000, 0.962, 0.50),
    ExitScore("exit3", 30, 300_000, 0.955, 0.97),
    ExitScore("student", 40, 400_000, 0.97, 0.96),
]
PEER = ExitScore("peer1", 1, 1, 0.99, 0.99)


def selected(exit="auto", **limits):
    return select_exit([PEER, *ROWS], exit, **limits).predictor


@pytest.mark.parametrize(
    ("exit", "name"),
    [
        ("1", "exit1"),
        (3, "exit3"),
        ("exit2", "exit2"),
        ("student", "student"),
        ("peer1", "peer1"),
    ],
)
def test_by_name(exit, name):
    assert selected(exit) == name


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({}, "exit2"),  # 0.962 is within a point of 0.97; on test images it would be exit1
        ({"min_accuracy": 0.85}, "exit1"),
        ({"min_accuracy": 0.9}, "exit2"),
        ({"min_accuracy": 0.97}, "student"),
        ({"max_macs": 150_000}, "exit1"),
        ({"max_macs": 300_000}, "exit2"),  # more accurate than the costlier exit3
        ({"max_macs": 1e9}, "student"),
        ({"max_macs": 350_000, "min_accuracy": 0.8}, "exit1"),
    ],
)
def test_automatic(limits, name):
    assert selected(**limits) == name


def test_a_point_is_a_point():
    rows = [replace(ROWS[0], val_score=0.97), replace(ROWS[3], val_score=0.98)]
    assert best_tradeoff(rows, "val").predictor == "exit1"
    assert (
        best_tradeoff([replace(rows[0], val_score=0.9699), rows[1]], "val").predictor == "student"
    )


def test_without_exits_the_student_is_all_there_is():
    assert select_exit(ROWS[-1:]).predictor == "student"
    with pytest.raises(ConfigError, match="there is no exit '2': this run has none; take student"):
        select_exit(ROWS[-1:], "2")


@pytest.mark.parametrize(
    ("exit", "limits", "sentence"),
    [
        ("5", {}, "there is no exit '5'"),
        ("exi2", {}, "did you mean 'exit2'"),
        ("auto", {"min_accuracy": 0.99}, r"nothing gets 99.0% .* the best is student with 97.0%"),
        ("auto", {"max_macs": 5_000}, "nothing costs 5,000 .* the cheapest is exit1 with 100,000"),
        (
            "auto",
            {"max_macs": 100_000, "min_accuracy": 0.9},
            "nothing gets 90.0% .* within 100,000 multiply-adds; the best is exit1 with 85.0%",
        ),
        ("1", {"min_accuracy": 0.9}, "the best is exit1 with 85.0%"),
        ("student", {"max_macs": 1e5}, "the cheapest is student with 400,000"),
    ],
)
def test_what_is_not_there(exit, limits, sentence):
    with pytest.raises(ConfigError, match=sentence):
        selected(exit, **limits)


def test_other_metrics_have_their_names():
    rows = [replace(row, metric="miou") for row in ROWS]
    with pytest.raises(ConfigError, match=r"a validation mIoU of 99.0%; the best is student"):
        select_exit(rows, min_accuracy=0.99)


@pytest.mark.parametrize(
    ("exit", "limits"), [("auto", {}), ("auto", {"max_macs": 1e9}), ("2", {"min_accuracy": 0.5})]
)
def test_test_images_are_not_to_choose_by(exit, limits):
    rows = [replace(row, val_score=None) for row in ROWS]
    with pytest.raises(ConfigError, match=r"held out no validation images.*exit1, exit2, exit3"):
        select_exit(rows, exit, **limits)
    assert select_exit(rows, "2", max_macs=1e9).predictor == "exit2"
