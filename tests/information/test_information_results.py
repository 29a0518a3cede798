"""Rows, curves and final losses."""

import csv
import io
import math

import numpy as np
import pytest
from synthetic_information import synthetic

from selfdistill.information import HELD_OUT, TRAINING, MeanStd
from selfdistill.information.results import chance_loss


def test_terms_and_networks():
    result = synthetic()
    assert result.networks == ["deep", "flat"]
    assert result.terms("deep") == ["mutual/1", "mutual/2", "self/1", "self/2", "self/3"]
    assert result.terms("flat", "self") == ["self/1"]


def test_curves_equal_numpy():
    result = synthetic(seeds=(0, 1, 2))
    rows = [r for r in result.rows if (r.network, r.term) == ("deep", "self/2")]
    for split in (HELD_OUT, TRAINING):
        losses = np.array([r.loss for r in rows if r.split == split]).reshape(3, -1)
        curve = result.curve("deep", "self/2", split)
        np.testing.assert_allclose(curve.mean, losses.mean(0))
        np.testing.assert_allclose(curve.std, losses.std(0, ddof=1))
        assert curve.steps.tolist() == [10, 20, 30]
    last = result.curve("deep", "self/2")
    assert result.final("deep", "self/2") == MeanStd(last.mean[-1], last.std[-1], 3)


def test_one_seed_has_no_deviation():
    amount = synthetic().final("flat", "mutual/1")
    assert (amount.std, amount.seeds) == (0.0, 1)


def test_the_table_holds_every_row():
    result = synthetic(seeds=(0, 1))
    table = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert len(table) == len(result.rows)
    for line, row in zip(table, result.rows, strict=True):
        assert (line["network"], line["term"], line["split"]) == (row.network, row.term, row.split)
        assert (int(line["seed"]), int(line["step"])) == (row.seed, row.step)
        assert float(line["loss"]) == pytest.approx(row.loss, abs=1e-6)
        assert line["tap"] == result.taps[row.network][int(row.term[-1]) - 1]
        assert float(line["chance"]) == pytest.approx(2 * math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    ("estimator", "negatives", "scores", "chance"),
    [
        ("jsd", 5, 0.0, 1.386294),
        ("infonce", 127, 3.0, math.log(128)),
        ("dv", 5, 2.0, 0.0),
        ("nwj", 5, 1.0, 0.0),
    ],
)
def test_chance_is_the_loss_of_scores_that_are_all_the_same(estimator, negatives, scores, chance):
    import torch

    from selfdistill.modules.mutual_information import ESTIMATORS

    constant = torch.full((4, 1 + negatives), scores)
    loss = ESTIMATORS[estimator](constant[:, 0], constant[:, 1:]).item()
    assert chance_loss(estimator, negatives) == pytest.approx(chance, abs=1e-6)
    assert loss == pytest.approx(chance, abs=1e-5)
