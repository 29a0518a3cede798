"""The options of `train` and the keys of a recipe are the same words."""

import inspect
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from command import say

import selfdistill
from selfdistill.cli.compare import compare
from selfdistill.cli.doctor import doctor
from selfdistill.cli.options import option_name
from selfdistill.cli.resolve_recipe import resolve_recipe
from selfdistill.cli.train import train
from selfdistill.core import ConfigError, DataError
from selfdistill.recipe.fields import Recipe, default_text
from selfdistill.recipe.schema import literal

PAGES = Path(__file__).parents[2] / "scripts" / "pages"
KEYS = set(Recipe.model_fields) - {"options"}
HINTS = typing.get_type_hints(train, include_extras=True)


def test_every_key_is_an_option_and_unset():
    parameters = inspect.signature(train).parameters
    assert set(parameters) == KEYS | {"recipe", "settings", "out", "resume"}
    assert {p.default for p in parameters.values()} == {None}


def test_doctor_takes_what_train_takes_and_compare_what_rows_share():
    options = set(inspect.signature(train).parameters)
    assert set(inspect.signature(doctor).parameters) == options - {"resume"} | {"will_it_help"}
    assert KEYS - set(inspect.signature(compare).parameters) == {"method", "seed"}


@pytest.mark.parametrize("key", sorted(KEYS))
def test_help_is_a_sentence_with_the_default(key):
    hint, option = typing.get_args(HINTS[key])
    field = Recipe.model_fields[key]
    assert option.help == f"{field.description} ({default_text(field)})"
    assert field.description[0].isupper() or field.description.startswith("torch.compile")
    assert field.description.endswith(".")
    assert option.rich_help_panel
    if field.default not in (None, "", ()):
        assert literal(default_text(field)) == field.default
    kinds = {typing.get_origin(kind) or kind for kind in typing.get_args(hint)}
    assert (
        field.default is None
        or {tuple: list}.get(type(field.default), type(field.default)) in kinds
    )


# What a contributor does, and all of it.
LINE = '    warp_factor: int = _training(3, "Speed of the ship.", ge=1)\n'
SHOW = """
import inspect, sys
from selfdistill import cli
from selfdistill.cli import compare, doctor, main, train
from selfdistill.runs import train as training
sys.path.insert(0, sys.argv.pop())
import recipe_page

for command in (train, doctor, compare):
    print("warp_factor" in inspect.signature(command).parameters)
print("`--warp-factor` | `int`, ≥ 1 | `3` | Speed of the ship." in str(recipe_page.pages()))


class Trainer(training.Trainer):
    def run(self):
        print("engine", self.settings.warp_factor)
        super().run()


training.Trainer = Trainer
main()
"""


@pytest.mark.slow
def test_an_option_added_as_one_line_appears_everywhere(tmp_path):
    shutil.copytree(Path(selfdistill.__file__).parent, tmp_path / "src" / "selfdistill")
    file = tmp_path / "src" / "selfdistill" / "engine" / "settings.py"
    head, first, rest = file.read_text("utf-8").partition("    epochs: int")
    file.write_text(head + LINE + first + rest, "utf-8")
    words = ["train", "--warp-factor", "7", "--method", "ce", "--model", "cifar/resnet8"]
    words += ["--epochs", "1", "--max-train-images", "64", "--device", "cpu", "--out", "run"]
    command = [sys.executable, "-c", SHOW, *words, str(PAGES)]
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:4] == ["True"] * 4
    assert "engine 7\n" in done.stdout
    assert "warp_factor = 7\n" in (tmp_path / "run" / "recipe.toml").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "milestones"),
    [(["--milestones", "3,5"], (3, 5)), (["--milestones", "3", "--milestones", "5"], (3, 5))],
)
def test_a_list_takes_commas_or_is_repeated(monkeypatch, words, milestones):
    recipes = []
    module = sys.modules["selfdistill.cli.train"]
    monkeypatch.setattr(module, "train_and_report", lambda recipe, *_, **__: recipes.append(recipe))
    assert say("train", *words, "--lr-schedule", "step", "--no-nesterov", "--flip").code == 0
    (recipe,) = recipes
    assert recipe.milestones == milestones
    assert (recipe.nesterov, recipe.flip, recipe.compile) == (False, True, False)


def test_option_names():
    keys = ("peers", "imports", "settings", "val_fraction", "out")
    assert [*map(option_name, keys)] == ["--peer", "--import", "--set", "--val-fraction", "--out"]


def test_a_file_keeps_its_say(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('epochs = 7\nmethod = "byot"\noptions = {soft_weight = 0.3, hint_weight = 0.0}')
    chosen = resolve_recipe({"lr": 0.2}, file, ["soft_weight=0.4", "flip=true"])
    assert (chosen.epochs, chosen.lr, chosen.flip, chosen.method) == (7, 0.2, True, "byot")
    assert chosen.options["soft_weight"] == 0.4
    assert chosen.options["hint_weight"] == 0


def test_the_method_may_be_set_with_its_options():
    chosen = resolve_recipe({}, settings=["method=byot", "soft_weight=0.4"])
    assert chosen.options["soft_weight"] == 0.4


def test_values_are_read_as_toml():
    pairs = [
        "method=muse",
        "lr_schedule=step",
        "milestones=[3, 5]",
        "critic_width=none",
        "combine=mul",
    ]
    chosen = resolve_recipe({}, settings=pairs)
    assert chosen.milestones == (3, 5)
    assert chosen.options["critic_width"] is None
    assert chosen.options["combine"] == "mul"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("foo=1", "neither a recipe nor method 'muse' has 'foo'"),
        ("epoch=1", "did you mean 'epochs'"),
        ("combin=add", "did you mean 'combine'"),
        ("epochs=2", "--set epochs and --epochs say the same"),
        ("epochs", "KEY=VALUE, not 'epochs'"),
        ("options=1", "KEY=VALUE"),
        ("combine=div", "combine = 'div' does not fit"),
        ("val_fraction=2", "val_fraction = 2 does not fit"),
        ("peers=a", "peers = 'a' does not fit"),
    ],
)
def test_a_wrong_setting(setting, sentence):
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        resolve_recipe({"method": "muse", "epochs": 3}, settings=[setting])


@pytest.mark.parametrize("words", [["--lr", "1"], ["--set", "lr=1"], ["--batch-size", "8"]])
def test_resume_takes_no_other_option(run, words):
    said = say("train", "--resume", run, *words)
    assert said.code == 2
    assert f"leave out {words[0]}" in said.err


def test_another_method_than_a_file_s_leaves_out_what_it_has_no_use_for(tmp_path):
    file = tmp_path / "recipe.toml"
    of_the_method = f'teacher = "gone"\nteacher_taps = "a,b"\nextra = "folder:{tmp_path}/gone"\n'
    file.write_text(f'method = "srrl"\nepochs = 7\n{of_the_method}[options]\nopen_set = "joint"\n')
    recipe = resolve_recipe({"method": "ce"}, file)
    assert (recipe.epochs, recipe.teacher, recipe.extra, recipe.options) == (7, "", "", {})
    with pytest.raises(DataError, match="there is no folder"):
        resolve_recipe({"epochs": 8}, file)
