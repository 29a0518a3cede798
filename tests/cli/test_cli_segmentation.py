"""A run on masks speaks of its own score, and leaves tables and pictures of it."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from command import say
from PIL import Image

from selfdistill.runs.progress import TerminalProgress

OPTIONS = (
    "--task",
    "segmentation",
    "--data",
    "folder:scenes",
    "--ignore-index",
    9,
    "--device",
    "cpu",
)
SHORT = ("--epochs", 1, "--batch-size", 8, "--method", "ce", "--val-fraction", 0.25)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Pictures of a bright half on a dark one, under a border that is no class."""
    place, draw = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (place / "scenes" / kind).mkdir(parents=True)
    for number in range(16):
        mask = np.zeros((32, 48), np.uint8)
        mask[:, draw.integers(8, 40) :] = 1
        pixels = (150 * mask + draw.integers(0, 100, mask.shape)).astype(np.uint8)
        mask[:2] = 9
        for kind, array in (("images", np.stack([pixels] * 3, -1)), ("masks", mask)):
            Image.fromarray(array).save(place / "scenes" / kind / f"{number}.png")
    (place / "scenes" / "classes.txt").write_text("dark\nlight\n")
    return place


@pytest.fixture(scope="module")
def trained(place):
    """What a run said, and its directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return say("train", *OPTIONS, *SHORT, "--out", "run"), place / "run"


def test_the_run_tells_its_task_and_its_score(trained):
    said, _ = trained
    assert (said.code, said.err) == (0, "")
    assert re.match(r"task +segmentation *\n", said.out)
    assert re.search(r"epoch 1/1 .*  val mIoU +[\d.]+ %", said.out)
    assert re.search(r"network +val mIoU +parameters", said.out)
    assert "accuracy" not in said.out
    for name in ("classes.csv", "pictures/"):
        assert f"run/{name}" in said.out


def test_a_table_of_classes_and_a_few_pictures(trained):
    _, run = trained
    with (run / "classes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == ["dark", "light"]
    assert sum(int(row["pixels"]) for row in rows) == 4 * 30 * 48
    files = sorted((run / "pictures").iterdir())
    assert [file.name for file in files] == [f"{place:03}.png" for place in range(4)]
    with Image.open(files[0]) as picture:
        assert picture.width >= 400
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 4
    assert "mIoU on the validation images of" in page


def test_a_resumed_run_draws_again(trained, place, monkeypatch):
    monkeypatch.chdir(place)
    picture = place / "run" / "pictures" / "000.png"
    before = picture.read_bytes()
    picture.unlink()
    assert say("train", "--resume", "run").code == 0
    assert picture.read_bytes() == before


@pytest.mark.filterwarnings("ignore:teacher .* guesses")
def test_a_teacher_is_evaluated_by_the_same_score(trained, place, monkeypatch):
    monkeypatch.chdir(place)
    words = ("--method", "kd", "--teacher", "run", "--out", "student")
    said = say("train", *OPTIONS, *SHORT, *words)
    assert said.code == 0
    assert re.search(r"the teacher reaches [\d.]+% mIoU on 4 validation images", said.out)


def test_an_epoch_is_evaluated_by_what_it_is_asked(capsys):
    scores = {"accuracy": 0.9, "miou": 0.5}
    TerminalProgress(2, "miou").on_epoch(
        {"epoch": 0, "losses": {"task": 1.0}, "val": {"student": scores}}
    )
    assert capsys.readouterr().out == "epoch 1/2  loss 1.000  val mIoU  50.0 %\n"
