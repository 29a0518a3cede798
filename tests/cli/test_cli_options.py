"""The options of `train` and the keys of a recipe are the same words."""

import inspect
import typing

import pytest
from command import say

from selfdistill.cli.choosing import chosen_recipe
from selfdistill.cli.train import train
from selfdistill.core import ConfigError
from selfdistill.recipe.schema import Recipe, literal

OWN = {"recipe", "settings", "out", "resume"}
HINTS = typing.get_type_hints(train, include_extras=True)


def test_each_option_is_a_key_and_unset():
    parameters = inspect.signature(train).parameters
    assert set(parameters) - OWN < set(Recipe.model_fields)
    assert {p.default for p in parameters.values()} == {None}


@pytest.mark.parametrize("name", sorted(set(inspect.signature(train).parameters) - OWN))
def test_the_default_shown_is_the_recipes(name):
    hint, option = typing.get_args(HINTS[name])
    default = Recipe.model_fields[name].default
    _, _, shown = option.help.rstrip(")").partition(" (")
    if default is None:
        assert shown in ("the data's own", "all", "")
    elif default is False or default in ("", ()):
        assert not shown
    else:
        assert literal(shown) == default
    kinds = {typing.get_origin(kind) or kind for kind in typing.get_args(hint)}
    assert (list if type(default) is tuple else type(default)) in kinds


def test_a_file_keeps_its_say(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('epochs = 7\nmethod = "byot"\noptions = {soft_weight = 0.3, hint_weight = 0.0}')
    chosen = chosen_recipe(
        {"recipe": file, "lr": 0.2, "settings": ["soft_weight=0.4", "flip=true"]}
    )
    assert (chosen.epochs, chosen.lr, chosen.flip, chosen.method) == (7, 0.2, True, "byot")
    assert chosen.options["soft_weight"] == 0.4
    assert chosen.options["hint_weight"] == 0


def test_the_method_may_be_set_with_its_options():
    chosen = chosen_recipe({"settings": ["method=byot", "soft_weight=0.4"]})
    assert chosen.options["soft_weight"] == 0.4


def test_values_are_read_as_toml():
    chosen = chosen_recipe({"settings": ["milestones=[3, 5]", "critic_width=none", "combine=mul"]})
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
        ("val=2", "val = 2 does not fit"),
    ],
)
def test_a_wrong_setting(setting, sentence):
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        chosen_recipe({"epochs": 3, "settings": [setting]})


@pytest.mark.parametrize("words", [["--lr", "1"], ["--set", "lr=1"], ["--batch-size", "8"]])
def test_resume_takes_no_other_option(run, words):
    said = say("train", "--resume", run, *words)
    assert said.code == 2
    assert f"leave out {words[0]}" in said.err
