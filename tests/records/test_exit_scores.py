"""The table of predictors and its csv."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.core import METHODS, ArtifactError
from selfdistill.costs.macs import network_cost
from selfdistill.records.exit_scores import (
    FILE,
    ExitScore,
    from_csv,
    read_exit_scores,
    score_exits,
    to_csv,
)
from selfdistill.taps import Taps

share = st.none() | st.floats(0, 1)
names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=9)
rows_ = st.builds(
    ExitScore, names, st.integers(0), st.integers(0), share, share, st.just("accuracy")
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows_, max_size=5))
def test_csv_comes_back(rows):
    assert from_csv(to_csv(rows)) == rows


def test_csv_is_plain():
    text = to_csv([ExitScore("exit1", 10, 200, 0.5, None)])
    assert list(csv.reader(io.StringIO(text))) == [
        ["predictor", "parameters", "macs", "val_accuracy", "test_accuracy"],
        ["exit1", "10", "200", "0.5", ""],
    ]
    assert text.endswith("\n")
    assert "\r" not in text


@pytest.fixture
def method(tiny_net, tiny_task):
    return METHODS["exits"](Taps(tiny_net, example=tiny_task.example), tiny_task)


def accuracies(method, start: float) -> dict:
    return {n: {"accuracy": start + i / 10} for i, n in enumerate(method.predictors())}


def test_rows_are_the_predictors_in_order(method, tiny_task):
    val, test = accuracies(method, 0.1), accuracies(method, 0.2)
    rows = score_exits(method, tiny_task.example, "accuracy", val, test)
    assert [r.predictor for r in rows] == ["exit1", "exit2", "exit3", "student"]
    for row, network in zip(rows, method.predictors().values(), strict=True):
        assert (row.parameters, row.macs) == network_cost(network, tiny_task.example)
        assert row.val_score == val[row.predictor]["accuracy"]
        assert row.test_score == test[row.predictor]["accuracy"]


def test_macs_grow_towards_the_student(method, tiny_task):
    rows = score_exits(method, tiny_task.example, "accuracy", None, None)
    assert all(r.val_score is None and r.test_score is None for r in rows)
    assert rows[0].macs < rows[-1].macs


@pytest.mark.parametrize(
    "text",
    [
        "",
        "predictor\n",
        "predictor,parameters,macs,val_accuracy,test_miou\n",
        "predictor,parameters,macs,val_miou,test_miou\na,1,2,0.5\n",
        "predictor,parameters,macs,val_miou,test_miou\na,1,2,0.5,x\n",
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ArtifactError, match=r"exits\.csv is no table of exits"):
        read_exit_scores(tmp_path)


def test_no_table_is_no_exits(tmp_path):
    assert read_exit_scores(tmp_path) == []
