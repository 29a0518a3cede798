"""A method, a network, a data set and a task in a file of the user's own, by every command."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module

import pytest
import torch
from command import say
from safetensors.torch import load_file

from selfdistill.core import METHODS
from selfdistill.data import sources
from selfdistill.engine import checkpoint
from selfdistill.reproduction import ledger
from selfdistill.tasks import TASKS

networks = import_module("selfdistill.models.build")  # the package has a function of this name
FILE = '''
"""A regression to a teacher's first feature, and what it needs to be tried."""

import torch
from torch import nn

from selfdistill.core import METHODS, Batch, Method, Progress, Provenance, StepOutput, Task
from selfdistill.data import DatasetSplits, InMemoryImages, register_data
from selfdistill.models import register_model
from selfdistill.taps import Taps, Teacher
from selfdistill.tasks import TASKS, Classification


@METHODS.add("imitate")
class Imitate(Method):
    """Regress the teacher's first feature.

    Args:
        student, teacher: networks with taps.
        task: what the labels mean.
        imitation_weight: weight of the regression.
    """

    kind = "offline"
    provenance = Provenance.PAPER

    def __init__(
        self, student: Taps, teacher: Teacher, task: Task, *, imitation_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.student, self.teacher, self.task = student, teacher, task
        self.imitation_weight = imitation_weight
        sides = [next(iter(network.shapes.values()))[0] for network in (student, teacher)]
        self.regressor = nn.Conv2d(*sides, 1)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        outputs, features = self.student.forward_features(batch.inputs)
        _, targets = self.teacher.forward_features(batch.inputs)
        x, target = (next(iter(maps.values())) for maps in (features, targets))
        gap = (self.regressor(x) - target).square().mean()
        losses = {"task": self.task.loss(outputs, batch.targets)}
        return StepOutput(outputs, losses | {"imitation": self.imitation_weight * gap})


def small(num_classes, in_channels):
    stages = [nn.Sequential(nn.Conv2d(c, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
              for c in (in_channels, 8)]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))


def stripes(root):
    labels = torch.arange(320) % 4
    pixels = torch.randint(60, (320, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    pixels = pixels.byte()
    pixels[torch.arange(320), :, 2 * labels] = 255  # a bright row for each class
    images = InMemoryImages(pixels, labels)
    return DatasetSplits(images, None, images, list("abcd"), flip=False)


class Grading(Classification):
    name = "grading"


TASKS["grading"] = Grading
register_model("own/small", small)
register_data("stripes", stripes, task="grading")
'''
REGISTRIES = (TASKS, METHODS._classes, sources._REGISTERED, networks._REGISTERED)
NAMES = ("grading", "imitate", ("grading", "stripes"), "own/small")
COMMON = ("--import", "own.py", "--task", "grading", "--data", "stripes", "--model", "own/small")
QUICK = ("--epochs", "2", "--batch-size", "32", "--lr", "0.3", "--device", "cpu")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A working directory with the file, and nothing of it in this process afterwards."""
    (tmp_path / "own.py").write_text(FILE)
    before = [dict(registry) for registry in REGISTRIES]
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "own.py"
    for registry, content in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(content)
    sys.modules.pop("own", None)


def done(*words):
    said = say(*words)
    assert said.code == 0, said.err
    return said.out


def test_from_training_to_export(own):
    done("train", *COMMON, *QUICK, "--method", "ce", "--out", "teacher")
    done("train", *COMMON, *QUICK, "--method", "imitate", "--teacher", "teacher", "--out", "run")
    with open("run/recipe.toml", "rb") as file:
        recipe = tomllib.load(file)
    assert recipe["imports"] == ["own.py"]
    assert recipe["options"] == {"imitation_weight": 1.0}
    newest = checkpoint.newest(own.parent / "run" / "checkpoints")
    assert not any(name.startswith("teacher.") for name in newest.tensors["method"])
    assert any(name.startswith("regressor.") for name in newest.tensors["method"])
    assert "stripes" in done("evaluate", "run")
    assert "student" in done("exits", "run")
    done("export", "run", "--format", "safetensors", "--out", "exported")
    assert load_file(next((own.parent / "exported").glob("*.safetensors")))


def test_a_run_that_was_cut_short_goes_on(own):
    whole = ("train", *COMMON, *QUICK, "--method", "ce", "--save-every-steps", "1")
    done(*whole, "--out", "run")
    checkpoints = own.parent / "run" / "checkpoints"
    want = checkpoint.newest(checkpoints).tensors["method"]
    for later in sorted(checkpoints.iterdir())[1:]:
        shutil.rmtree(later)
    assert not checkpoint.newest(checkpoints).state["finished"]
    sys.modules.pop("own")  # as in a new process
    for registry, name in zip(REGISTRIES, NAMES, strict=True):
        registry.pop(name)
    done("train", "--resume", "run")
    resumed = checkpoint.newest(checkpoints).tensors["method"]
    assert all(torch.equal(want[name], resumed[name]) for name in want)


def test_lists_and_doctor(own):
    assert "imitate" in done("methods", "--import", "own.py")
    assert "imitation_weight" in done("methods", "imitate", "--import", "own.py")
    assert "own/small" in done("models", "own", "--import", "own.py")
    assert "0" in done("taps", "own/small", "--import", "own.py")
    assert "stripes" in done("doctor", *COMMON, *QUICK, "--method", "ce")


def test_without_the_import_the_sentence_names_what_is_missing(own):
    said = say("train", "--model", "own/small", *QUICK)
    assert said.code == 2
    assert "there is no network 'own/small'" in said.err
    said = say("train", "--task", "grading", *QUICK)
    assert "there is no task 'grading'" in said.err


def test_code_inside_a_run_is_not_executed(own):
    done("train", *COMMON, *QUICK, "--method", "ce", "--out", "run")
    (own.parent / "run" / "own.py").write_text("raise SystemExit('executed')")
    recipe = own.parent / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('"own.py"', '"run/own.py"'))
    said = say("evaluate", "run")
    assert said.code == 2
    assert "is never executed" in said.err


@pytest.mark.slow
def test_compare_in_processes_of_their_own(own):
    command = [sys.executable, "-m", "selfdistill", "compare", *COMMON, *QUICK, "--methods",
               "exits", "--seeds", "0-1", "--out", "study", "--jobs", "2"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert (own.parent / "study" / "results.csv").exists()


TABLE = """
source = "my notes"
smoke = "notes/first/small/imitate"

[networks.small]
model = "own/small"
teacher = "notes/first/small/plain"

[methods.mine.plain]
method = "ce"

[methods.mine.imitate]
method = "imitate"
options = { imitation_weight = 0.5 }

[recipes.short]
imports = ["own.py"]
data = "stripes"
task = "grading"
val_fraction = 0.2
epochs = 1
batch_size = 32
device = "cpu"

[tables.first]
title = "The first"
figures_source = "notes"
epoch = "last"
recipe = "short"
methods = "mine"

[tables.first.rows]
"small/plain" = ["25.0"]
"small/imitate" = ["26.5 ± 0.5"]
"""


@pytest.fixture
def table(own):
    """A file with two rows of the method, forgotten afterwards."""
    (own.parent / "notes.toml").write_text(TABLE, encoding="utf-8")
    yield own.parent / "notes.toml"
    ledger._ADDED.clear()
    ledger.ledger.cache_clear()


def test_a_table_of_one_s_own_is_reproduced(table):
    out = done("reproduce", "--table", "notes.toml", "notes/first/small/imitate", "--seeds", "1")
    assert "26.5" in out
    run = table.parent / "runs/reproduce/notes/first/small/imitate"
    assert tomllib.loads((run / "s0/recipe.toml").read_text())["options"] == {
        "imitation_weight": 0.5
    }
    assert (run / "result.csv").exists()
    assert (run.parent / "plain/s0/exits.csv").exists()


def test_a_table_of_one_s_own_is_listed_and_checked(table):
    assert "notes/first/small/plain" in done(
        "reproduce", "--table", "notes.toml", "--list", "notes"
    )
    assert "bit for bit" in done("reproduce", "--table", table, TABLE_ROW, "--smoke")


TABLE_ROW = "notes/first/small/imitate"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("title =", "titel ="), "is no table of rows: tables.first.title"),
        (("mine.imitate]", "mine.imitates]"), "small/imitate does not fit its file"),
        (('methods = "mine"', 'methods = "yours"'), "does not fit its file: 'yours'"),
        (("26.5", "about 26"), "small/imitate does not fit its file"),
        (('"small/plain" = ["25.0"]', '"small/plain" = { published = [], same_run_as = "a/b" }'),
         "the same run as 'a/b', which is no row"),
        (('source = "my notes"', "source = "), "is not valid TOML"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit(table, change, sentence):
    assert change[0] in TABLE
    table.write_text(TABLE.replace(*change), encoding="utf-8")
    said = say("reproduce", "--table", "notes.toml", "--list")
    assert said.code == 2
    assert sentence in said.err.replace("\n", " ")
    assert "notes/first" not in "".join(ledger.ledger())


def test_the_name_of_a_paper_s_system_is_taken(own):
    (own.parent / "muse.toml").write_text(TABLE, encoding="utf-8")
    said = say("reproduce", "--table", "muse.toml", "--list")
    assert said.code == 2
    assert "rename muse.toml" in said.err
