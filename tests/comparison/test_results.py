"""What a study compares, while runs are missing and when all are there."""

import pytest

from selfdistill.comparison.grid import plan_study
from selfdistill.comparison.results import RunOutcome, main_results, row_results
from selfdistill.comparison.rows import parse_rows
from selfdistill.core import ConfigError
from selfdistill.records.exit_scores import ExitScore

EXITS = {"ce": ("student",), "cskd": ("student",), "muse": ("exit1", "student")}


def results(*finished: str, exit: str):
    study = plan_study(parse_rows(["ce", "cskd", "muse"]), (0,), exit=exit)
    outcomes = [
        RunOutcome(row, 0, [ExitScore(name, 1, 20, 0.7, 0.7) for name in EXITS[row]])
        for row in finished
    ]
    return [(r.row, r.predictor) for r in main_results(study, row_results(study, outcomes))]


@pytest.mark.parametrize("exit", ["exit1", "exit9"])
def test_an_exit_may_be_of_a_row_that_is_not_there_yet(exit):
    assert results(exit=exit) == []
    assert results("ce", "cskd", exit=exit) == [("ce", "student")]
    assert results("cskd", exit=exit) == []


def test_the_rows_that_have_the_exit():
    assert results("ce", "cskd", "muse", exit="exit1") == [("ce", "student"), ("muse", "exit1")]


def test_an_exit_that_no_row_has():
    with pytest.raises(ConfigError, match=r"no row has a predictor 'exit9' \(did you mean 'exit1'"):
        results("ce", "cskd", "muse", exit="exit9")
