"""`selfdistill reproduce`: the rows, one of them made again, and the quick check."""

import csv
import json
import re
import tomllib
from pathlib import Path

import pytest
from command import say

from selfdistill.engine.run_directory import RunDirectory
from selfdistill.recipe.schema import parse
from selfdistill.reproduction import ledger, smoke

TINY = """
order = 1
source = "nobody"
smoke = "made/table1/resnet8/kd"

[recipes.digits]
data = "digits"
max_train_images = 32
val_fraction = 0.0
epochs = 1
batch_size = 32

[networks]
resnet8 = { model = "cifar/resnet8", teacher = "made/table1/teacher/ce" }
teacher = { model = "cifar/resnet8" }

[methods.all]
ce = { method = "ce" }
kd = { method = "kd", deviations = ["seen at night"] }

[tables.table1]
title = "Made up"
figures_source = "paper"
epoch = "the last"
recipe = "digits"
methods = "all"

[tables.table1.rows]
"teacher/ce" = { published = [] }
"resnet8/kd" = ["99.00 ± 0.10"]
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A ledger of two rows that are trained in a moment."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "made.toml").write_text(TINY)
    (folder / "ours.csv").write_text("row,predictor,n,mean,std,epochs,machine,commit\n")
    monkeypatch.setattr(ledger, "FOLDER", folder)
    monkeypatch.setattr("selfdistill.reproduction.reproduce.FOLDER", folder)
    ledger.ledger.cache_clear()
    yield
    ledger.ledger.cache_clear()


def test_lists_all_rows():
    result = say("reproduce", "--list")
    assert result.code == 0
    lines = [re.split(r" {2,}", line) for line in result.out.splitlines()]
    assert len(lines) == len(ledger.ledger())
    assert ["muse/table2/resnet18/mi+si", "78.75 ± 0.31", "–", "yes"] in lines
    assert ["muse/table4/yolov5x/mixsi", "67.2 ± 0.1", "–", "yes"] in lines
    assert ["muse/table3/vgg19/mixsi", "exit3 69.26", "–", "yes"] in lines
    assert ["muse/table7a/resnet20-resnet56/dml", "71.13 / 74.97", "–", "yes"] in lines


def test_tells_all_of_one_row():
    result = say("reproduce", "--list", "muse/table7a/shufflenet_v1-wrn_40_2/kd")
    assert "student 70.50, peer1 75.61" in result.out
    assert "Deviation: sic" in result.out
    assert "Cannot be run: the paper does not say" in result.out
    assert "Ours, last epoch, test: not measured yet" in result.out


def test_prints_a_recipe_that_trains():
    result = say("reproduce", "muse/table2/resnet18/mi+si", "--recipe")
    recipe = parse(tomllib.loads(result.out))
    assert recipe == ledger.find_row("muse/table1/resnet18/mi+si").recipe()
    assert "# Published, top-1 accuracy, %: student 78.75 ± 0.31" in result.out


@pytest.mark.filterwarnings("ignore:teacher .* guesses")
def test_trains_a_row_and_its_teacher_and_goes_on(made):
    result = say("reproduce", "made/table1/resnet8/kd", "--seeds", 1, "--device", "cpu")
    assert result.code == 0, result.err
    directory = Path("runs/reproduce/made/table1")
    assert {p.parent.relative_to(directory).as_posix() for p in directory.rglob("exits.csv")} == {
        "teacher/ce/s0",
        "resnet8/kd/s0",
    }
    assert "Deviation: seen at night" in result.out
    assert "too few seeds to say" in result.out
    assert "--val-fraction 0.1 holds out a tenth" in result.out
    resumed = say("reproduce", "made/table1/resnet8/kd", "--device", "cpu")
    assert resumed.out.count("trained already") == 2
    with (directory / "resnet8/kd/result.csv").open() as stream:
        (line,) = csv.DictReader(stream)
    assert (line["row"], line["predictor"], line["n"]) == ("made/table1/resnet8/kd", "student", "3")
    assert f"{float(line['mean']):.2f} ± {float(line['std']):.2f}" in resumed.out
    assert "beyond noise" in resumed.out


def test_the_best_epoch_is_of_held_out_images(made):
    arguments = (
        "reproduce",
        "made/table1/teacher/ce",
        "--seeds",
        1,
        "--val-fraction",
        0.2,
        "--device",
        "cpu",
    )
    result = say(*arguments)
    assert result.code == 0, result.err
    assert "best epoch, validation" in result.out
    run = RunDirectory(Path("runs/reproduce/made/table1/teacher/ce/val0.2/s0"))
    scores = [e["val"]["student"]["accuracy"] for e in run.metrics() if e["kind"] == "epoch"]
    assert f"{100 * max(scores):.2f}" in result.out


def test_the_best_epoch_is_the_students(tmp_path):
    from selfdistill.reproduction.reproduce import best_epoch

    entries = [(0.1, 0.5), (0.3, 0.2), (0.2, 0.9)]  # student, exit1
    lines = [
        {"kind": "epoch", "step": k, "val": {"exit1": {"accuracy": e}, "student": {"accuracy": s}}}
        for k, (s, e) in enumerate(entries)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert best_epoch(tmp_path) == {"exit1": 0.2, "student": 0.3}
    assert best_epoch(tmp_path / "nowhere") == {}


def test_the_mean_of_networks_that_train_together(tmp_path):
    from selfdistill.records.exit_scores import ExitScore
    from selfdistill.reproduction.reproduce import reproduced_scores

    row = ledger.find_row("muse/table7a/resnet20-resnet20/dml")
    exits = [ExitScore("peer1", 1, 1, None, 0.70), ExitScore("student", 1, 1, None, 0.72)]
    scores = {score.predictor: score for score in reproduced_scores(row, {tmp_path: exits})}
    assert scores["average"].last.mean == pytest.approx(71.0)
    assert scores["average"].published.mean == 70.84
    assert scores["student"].published is None


@pytest.mark.slow
def test_smoke_of_one_row():
    result = say("reproduce", "muse/table7b/resnet20/baseline", "--smoke", "--device", "cpu")
    assert result.code == 0, result.out + result.err
    steps = [line.split()[:2] for line in result.out.splitlines() if line.startswith("  ")]
    assert steps == [[s, "ok"] for s in ("train", "resume", "evaluate", "table", "report")]
    assert "bit for bit" in result.out
    assert "1 of 1 rows passed" in result.out
    assert not Path("runs").exists()


@pytest.mark.slow
def test_smoke_of_all_systems():
    result = say("reproduce", "--smoke", "--device", "cpu")
    assert result.code == 0, result.out + result.err
    assert re.search(r"\b(\d\d+) of \1 rows passed", result.out)


def test_smoke_stops_at_what_fails(monkeypatch):
    def broken(*_, **__):
        raise ValueError("nobody\nthought of it")

    monkeypatch.setattr(smoke, "train_recipe", broken)
    result = say("reproduce", "muse/table7b/resnet20/baseline", "--smoke", "--device", "cpu")
    assert result.code == 1
    assert "train     failed: ValueError: nobody thought of it" in result.out
    assert "evaluate" not in result.out
    assert "0 of 1 rows passed" in result.out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "which row? reproduce --list shows them all"),
        (["muse/table2/resnet18/mi+s"], 2, "did you mean 'muse/table2/resnet18/mi+si'?"),
        (["frskd/segmentation/efficientdet_d0-voc/frskd"], 2, "cannot be run: its networks"),
        (
            ["frskd/segmentation/efficientdet_d0-voc/frskd", "--smoke"],
            2,
            "cannot be run: its networks",
        ),
        (
            ["frskd/segmentation/efficientdet_d0-voc/frskd", "--recipe"],
            2,
            "cannot be run: its networks",
        ),
        (["muse/table9", "--list"], 2, "no row matches 'muse/table9'"),
        (["--recipe"], 2, "which row?"),
        (["--list", "--smoke"], 2, "--list and --smoke ask for different things"),
        (["--list", "--seeds", "3"], 2, "--list has no use for --seeds"),
        (["--smoke", "--val-fraction", "0.1"], 2, "--smoke has no use for --val-fraction"),
        (["muse/table7b/resnet20/baseline", "--seeds", "0"], 2, "makes no run"),
        (["muse/table7b/resnet20/baseline", "--val-fraction", "1.5"], 2, "val_fraction = 1.5"),
        (["muse/table7b/resnet20/baseline", "--data", "npz:none.npz"], 4, "there is no file"),
        (["muse/table1/resnet18-imagenet/baseline"], 4, "there is no folder data/imagenet"),
    ],
)
def test_bad_input(arguments, code, sentence):
    result = say("reproduce", *arguments)
    assert sentence in " ".join(result.err.split())
    assert result.err.startswith("error: ")
    assert result.code == code
    assert len(result.err.splitlines()) == 1
