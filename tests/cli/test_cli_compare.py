"""`selfdistill compare`: what it says, and how it is refused."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from command import TINY, say

from selfdistill.study import order

PRETEND = Path(__file__).parents[1] / "study" / "pretend_train.py"
WORDS = ("compare", "--methods", "muse", "--out", "study", "--epochs", "1", "--device", "cpu")


@pytest.fixture
def pretend(monkeypatch):
    """Runs are made by a stand-in; the fixture tells what they come to."""
    monkeypatch.setattr(order, "COMMAND", (sys.executable, str(PRETEND)))

    def tell(**runs: str) -> None:
        words = {name.replace("_", " "): what for name, what in runs.items()}
        monkeypatch.setenv("PRETEND", json.dumps(words))

    return tell


def test_from_the_first_line_to_the_last(pretend):
    said = say(*WORDS, "--seeds", "0-2", "--jobs", 6, "--threads", 1)
    assert (said.code, said.err) == (0, "")
    assert "rows     ce, muse\n" in said.out
    assert "runs     6; 6 at a time, 1 thread each" in said.out
    assert "6 of 6" in said.out
    table, sentences = said.out.partition("row ")[2].split("\n\n")[:2]
    difference = re.search(r"^muse +3 +90\.\d\d ± \d\.\d\d % +(\+[45]\.\d\d)$", table, re.M)[1]
    assert sentences.startswith(f"muse minus ce: {difference} points (t ")
    assert sentences.endswith("), beyond noise.")
    written = said.out.partition("Written:")[2].split()
    assert all(Path(name).exists() for name in written)
    again = say("compare", "--resume", "study")
    assert "runs     6, all of them there" in again.out
    assert again.out.partition("row ")[2] == said.out.partition("row ")[2]


def test_a_run_that_fails(pretend):
    pretend(muse_s0="diverge", muse_s1="warn")
    said = say(*WORDS, "--seeds", "0-1", "--jobs", "2")
    assert said.code == 5
    assert "muse  seed 0  failed: the loss is no longer finite at step 3" in said.out
    assert said.err.splitlines() == [
        "warning: muse s1: the teacher guesses",
        "error: muse seed 0 failed: the loss is no longer finite at step 3",
    ]
    assert "selfdistill compare --resume study" in said.out


def test_a_baseline_that_fails(pretend):
    pretend(ce_s0="crash")
    said = say(*WORDS, "--seeds", "0")
    assert said.code == 7
    assert "ce    0 of 1" in said.out
    assert "muse has no seed in common with ce." in said.out
    assert "muse has no seed" not in Path("study/study.html").read_text()


def test_settings_and_a_recipe(pretend, tmp_path):
    Path("my.toml").write_text('method = "muse"\nlr = 0.01\n[options]\ncombine = "mul"\n')
    words = ("--recipe", "my.toml", "--set", "clip=1.0", "--set", "soft_weight=0.2", "--seeds", "0")
    assert say("compare", "--out", "study", "--device", "cpu", *words).code == 0
    recipe = Path("study/runs/muse/s0/recipe.toml").read_text()
    for line in ("lr = 0.01", "clip = 1.0", 'combine = "mul"', "soft_weight = 0.2"):
        assert line in recipe


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--methods", "mus"], "did you mean 'muse'"),
        (["--methods", "muse,muse"], "two rows are named 'muse'"),
        (["--methods", "kd"], "learns from a teacher"),
        (["--seeds", "4-0"], "seeds are written 0-4 or 0,1,2, not '4-0'"),
        (["--jobs", "0"], "--jobs is 1 or more"),
        (["--jobs", "many"], "--jobs is a number or auto, not 'many'"),
        (["--threads", "0"], "--threads is 1 or more"),
        (["--set", "epoch=3"], "has 'epoch' (did you mean 'epochs'?)"),
        (["--set", "epochs"], "--set takes KEY=VALUE, not 'epochs'"),
        (["--epochs", "2", "--set", "epochs=3"], "--set epochs and --epochs say the same"),
        (["--set", "seed=3"], "given by --seeds"),
        (["--set", "jobs=3"], "'jobs' is given by --jobs"),
        (["--recipe", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--launcher", "slurm"], "--launcher is local or submitit"),
        (["--slurm", "partition=gpu"], "--slurm is for --launcher submitit"),
        (["--launcher", "submitit", "--slurm", "gpu"], "--slurm takes KEY=VALUE, not 'gpu'"),
        (["--resume", "nowhere"], "nowhere holds no study"),
        (["--resume", "x", "--epochs", "3", "--peer", "y"], "leave out --peer and --epochs"),
        (["--out", "."], "is something else and no study"),
    ],
)
def test_refused(words, sentence, monkeypatch):
    monkeypatch.setattr(order, "COMMAND", ("false",))  # nothing is to be trained
    Path("thesis.tex").touch()
    said = say("compare", *words)
    assert "Traceback" not in said.err
    assert said.err.startswith("error: ")
    assert sentence in said.err
    assert said.code == 2
    assert [place.name for place in Path().iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_real_runs():
    words = ("--methods", "byot", "--seeds", "0-1", "--out", "study", "--jobs", "2")
    said = say("compare", *TINY, *words)
    assert (said.code, said.err) == (0, "")
    assert "too few seeds to say" in said.out
    table = Path("study/runs/byot/s1/exits.csv")
    before = table.read_text()
    shutil.rmtree(table.parent)
    assert say("compare", "--resume", "study").code == 0
    assert table.read_text() == before
