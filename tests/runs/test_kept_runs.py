"""Runs that earlier versions left are what they were: see `kept/README.md`."""

import runpy
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import selfdistill
from selfdistill.engine import checkpoint

KEPT = Path(__file__).parent / "kept"
RUNS = sorted(KEPT.glob("v*"))
ONE_IMAGE = 0.006  # of either split, and a little: another processor may round otherwise
runpy.run_path(str(KEPT / "network.py"))


@pytest.fixture(params=RUNS, ids=lambda path: path.name)
def kept(request, tmp_path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / "run"))


def test_scores_are_those_of_its_table(kept):
    run = selfdistill.load(kept)
    assert run.unfinished == ""
    for split in ("val", "test"):
        again = run.evaluate(split).exits
        for score, want in zip(again, run.exits, strict=True):
            assert score.predictor == want.predictor
            assert score.score(split) == pytest.approx(want.score(split), abs=ONE_IMAGE)


def test_a_resume_from_its_earlier_checkpoint_ends_as_it_did(kept):
    *_, newest = sorted((kept / "checkpoints").glob("step-*"))
    want = checkpoint.load(newest)
    shutil.rmtree(newest)
    (kept / "exits.csv").unlink()
    assert selfdistill.load(kept).unfinished
    run = selfdistill.train(out=kept, resume=True, quiet=True)
    again = checkpoint.load(newest)
    assert again.state == want.state
    for group, tensors in want.tensors.items():
        torch.testing.assert_close(again.tensors[group], tensors, rtol=1e-3, atol=1e-3)
    assert run.exits


def test_it_can_be_extended(kept):
    epochs = selfdistill.load(kept).recipe.epochs
    run = selfdistill.train(out=kept, resume=True, epochs=epochs + 1, quiet=True)
    assert (run.state["epoch"], run.recipe.epochs) == (epochs + 1, epochs + 1)
    assert selfdistill.load(kept).exits == run.exits


def test_it_can_be_exported(kept):
    run = selfdistill.load(kept)
    result = run.export(exit="student", format="safetensors")
    state = run.network.state_dict()
    assert {n: v.shape for n, v in load_file(result.file).items()} == {
        n: v.shape for n, v in state.items()
    }
    assert result.verification.holds


@pytest.mark.slow
def test_its_page_is_drawn(kept):
    run = selfdistill.load(kept)
    assert run.recipe.method in run.report().read_text()


def test_it_is_small():
    for run in RUNS:
        files = [path for path in run.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 100_000
