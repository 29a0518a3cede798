"""Numbers for people, and the best bargain among exits."""

from dataclasses import replace

import pytest

from selfdistill.cli.console import amount, show_exits, tradeoff_sentence
from selfdistill.records.exit_scores import ExitScore


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (78_000, "78.0 k"),
        (309_418, "309 k"),
        (999_900, "1.00 M"),
        (11_173_962, "11.2 M"),
        (1_820_000_000, "1.82 G"),
        (99_960, "100 k"),
    ],
)
def test_amount(number, text):
    assert amount(number) == text


def rows(*exits):
    return [ExitScore(n, 10, macs, val, test) for n, macs, val, test in exits]


def test_the_cheapest_exit_within_a_point():
    sentence = tradeoff_sentence(
        rows(("exit1", 1, 0.9, 1), ("exit2", 40, 0.97, 0), ("student", 100, 0.98, 0))
    )
    assert sentence == "Best trade-off: exit2, 40 % of the student's MACs at -1.0 points (val)."


def test_no_exit_is_near():
    assert "no exit comes within" in tradeoff_sentence(
        rows(("exit1", 1, 0.9, 1), ("student", 100, 0.98, 0))
    )


def test_test_images_serve_where_nothing_was_held_out():
    assert tradeoff_sentence(rows(("exit1", 1, None, 0.9), ("student", 2, None, 0.9))).endswith(
        "(test)."
    )


def test_a_peer_is_no_exit():
    assert tradeoff_sentence(rows(("peer1", 1, 0.9, 0.9), ("student", 2, 0.9, 0.9))) == ""


def test_nothing_to_say_of_a_student_alone():
    assert tradeoff_sentence(rows(("student", 2, 0.5, 0.5))) == ""
    assert tradeoff_sentence(rows(("exit1", 1, None, None), ("student", 2, None, None))) == ""


def test_another_score_than_accuracy_is_named(capsys):
    found = [
        replace(row, metric="miou") for row in rows(("exit1", 5, 0.5, 1), ("student", 9, 0.5, 1))
    ]
    show_exits(found)
    shown = capsys.readouterr().out
    assert shown.split("\n")[0].split()[:5] == ["exit", "val", "mIoU", "test", "mIoU"]
    assert shown.endswith("at +0.0 points (val mIoU).\n")
    show_exits([replace(row, metric="accuracy") for row in found])
    assert "mIoU" not in capsys.readouterr().out
