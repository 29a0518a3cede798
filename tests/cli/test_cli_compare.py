"""`selfdistill compare`: its output, and its errors."""

import re
import shutil
from pathlib import Path

import pytest
from command import TINY, say

from selfdistill.comparison import jobs

ARGUMENTS = ("compare", "--methods", "muse", "--out", "study", "--epochs", "1", "--device", "cpu")


def test_from_the_first_line_to_the_last(pretend):
    result = say(*ARGUMENTS, "--seeds", "0-2", "--jobs", 6, "--threads", 1)
    assert (result.code, result.err) == (0, "")
    assert "rows     ce, muse\n" in result.out
    assert "runs     6; 6 at a time, 1 thread each" in result.out
    assert "6 of 6" in result.out
    assert re.search(
        r"^\n?muse helps: \+[45]\.\d\d points of test accuracy over ce \(95 % interval .*, "
        r"3 seeds, beyond noise\), at the same multiply-adds in inference\.$",
        result.out,
        re.M,
    )
    table, sentences = result.out.partition("row ")[2].split("\n\n")[:2]
    difference = re.search(r"^muse +3 +90\.\d\d ± \d\.\d\d % +(\+[45]\.\d\d)$", table, re.M)[1]
    assert sentences.startswith(f"muse minus ce: {difference} points (t ")
    assert sentences.endswith("), beyond noise.")
    written = result.out.partition("Written:")[2].split()
    assert all(Path(name).exists() for name in written)
    again = say("compare", "--resume", "study")
    assert "runs     6, all of them finished already" in again.out
    assert again.out.partition("row ")[2] == result.out.partition("row ")[2]


@pytest.mark.slow
def test_a_run_that_fails(pretend):
    pretend(muse_s0="diverge", muse_s1="warn")
    result = say(*ARGUMENTS, "--seeds", "0-1", "--jobs", "2")
    assert result.code == 5
    assert "muse  seed 0  failed: the loss is no longer finite at step 3" in result.out
    assert result.err.splitlines() == [
        "warning: muse s1: the teacher guesses",
        "error: muse seed 0 failed: the loss is no longer finite at step 3",
    ]
    assert "selfdistill compare --resume study" in result.out


def test_a_baseline_that_fails(pretend):
    pretend(ce_s0="crash")
    result = say(*ARGUMENTS, "--seeds", "0")
    assert result.code == 7
    assert "ce    0 of 1" in result.out
    assert "muse has no seed in common with ce." in result.out
    assert "muse has no seed" not in Path("study/study.html").read_text()


def test_settings_and_a_recipe(pretend, tmp_path):
    Path("my.toml").write_text('method = "muse"\nlr = 0.01\n[options]\ncombine = "mul"\n')
    arguments = (
        "--recipe",
        "my.toml",
        "--set",
        "clip_grad_norm=1.0",
        "--set",
        "soft_weight=0.2",
        "--seeds",
        "0",
    )
    assert say("compare", "--out", "study", "--device", "cpu", *arguments).code == 0
    recipe = Path("study/runs/muse/s0/recipe.toml").read_text()
    for line in ("lr = 0.01", "clip_grad_norm = 1.0", 'combine = "mul"', "soft_weight = 0.2"):
        assert line in recipe


@pytest.mark.filterwarnings("default")
def test_a_preset_and_pictures_of_ones_own_are_one_command(pretend):
    Path("mine").mkdir()
    arguments = ("--preset", "finetune", "--methods", "muse,frskd", "--data", "folder:mine")
    result = say("compare", *arguments, "--seeds", "0", "--device", "cpu", "--jobs", 3)
    assert result.code == 0
    assert result.err.count("warning: ") == 1
    assert "random weights; give others as weights" in result.err
    assert "rows     ce, muse, frskd\n" in result.out
    assert (
        "\npreset   finetune (classification, convolutional network, random weights): "
        in result.out
    )
    assert "\nOne seed cannot tell what helps; the best of 2 so far is " in result.out
    for row in ("ce", "muse", "frskd"):
        recipe = Path(f"studies/mine-resnet10_w16/recipes/{row}.toml").read_text()
        for line in (
            'preset = "finetune"',
            "lr = 0.01",
            "warmup_epochs = 1.0",
            f'method = "{row}"',
        ):
            assert line in recipe


@pytest.mark.parametrize(
    ("arguments", "sentence"),
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
def test_refused(arguments, sentence, monkeypatch):
    monkeypatch.setattr(jobs, "PROGRAM", "no_such_program")  # nothing is to be trained
    Path("thesis.tex").touch()
    result = say("compare", *arguments)
    assert "Traceback" not in result.err
    assert result.err.startswith("error: ")
    assert sentence in result.err
    assert result.code == 2
    assert [place.name for place in Path().iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_real_runs():
    arguments = ("--methods", "byot", "--seeds", "0-1", "--out", "study", "--jobs", "2")
    result = say("compare", *TINY[2:], *arguments)  # which methods is a list
    assert (result.code, result.err) == (0, "")
    assert "too few seeds to say" in result.out
    table = Path("study/runs/byot/s1/exits.csv")
    before = table.read_text()
    shutil.rmtree(table.parent)
    assert say("compare", "--resume", "study").code == 0
    assert table.read_text() == before
