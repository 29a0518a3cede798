"""`Run.anytime`, as a user of the library calls it."""

import pytest
import torch

import selfdistill
from selfdistill.core import ConfigError, DataError
from selfdistill.early_exit.thresholds import threshold_outcome

TINY = {
    "epochs": 1,
    "max_train_images": 64,
    "batch_size": 32,
    "model": "cifar/resnet8",
    "method": "exits",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return selfdistill.train(out=tmp_path_factory.mktemp("anytime") / "run", **TINY)


def test_a_threshold_for_all_exits(run):
    network = run.anytime(threshold=0.3)
    assert network.thresholds == (0.3,) * len(network.heads)
    assert network.names == tuple(row.predictor for row in run.exits)
    logits, exits = network(torch.randn(6, 1, 8, 8))
    assert logits.shape == (6, 10)
    assert set(exits.tolist()) <= set(range(len(network.names)))


def test_one_threshold_each(run):
    exits = len(run.exits) - 1
    network = run.anytime(threshold=[None] * (exits - 1) + [0.2])
    assert network.names == (f"exit{exits}", "student")


def test_thresholds_that_keep_a_promise(run):
    from selfdistill.early_exit.network import collect_exit_decisions, exit_costs
    from selfdistill.recipe.build_run import load_data

    data = load_data(run.recipe)
    network = run.anytime(max_loss=0.03)
    decisions = collect_exit_decisions(run.method, data, data.val)
    chosen = dict(zip(network.names, network.thresholds, strict=False))
    thresholds = [chosen.get(row.predictor) for row in run.exits[:-1]]
    outcome = threshold_outcome(
        decisions, exit_costs(run.method, torch.zeros(1, 1, 8, 8)), thresholds
    )
    assert outcome.accuracy >= decisions.correct[:, -1].mean() - 0.03 - 1e-9


def test_nothing_to_choose_by(run):
    from dataclasses import replace

    with pytest.raises(DataError, match="held none out; give a threshold"):
        replace(run, data=replace(run.data, val=None)).anytime()


def test_no_probability(run):
    with pytest.raises(ConfigError, match="at most 1, not 90"):
        run.anytime(threshold=90)
