"""Recipes: what they take, what they refuse, and that they come back as they were written."""

import tomllib
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import selfdistill.methods  # noqa: F401  registers them all
from selfdistill.core import METHODS, ConfigError, options
from selfdistill.recipe.document import typed_recipe
from selfdistill.recipe.schema import Recipe, literal, parse, read, type_name, write

RECIPES = sorted(Path(__file__).parents[2].joinpath("recipes").rglob("*.toml"))

some = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(1, 300),
        "batch_size": st.integers(1, 512),
        "lr": st.floats(1e-6, 10),
        "seed": st.integers(0, 2**31),
        "data_root": st.text(
            st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"),
            max_size=20,
        ),
        "milestones": st.lists(st.integers(0, 300), max_size=4).map(tuple),
        "flip": st.booleans(),
        "image_size": st.integers(1, 512),
        "optimizer": st.sampled_from(["sgd", "adamw"]),
        "options": st.fixed_dictionaries(
            {},
            optional={
                "combine": st.sampled_from(["add", "mul"]),
                "information_weight": st.floats(0, 10),
                "critic_width": st.none() | st.integers(1, 1024),
                "detach_last": st.booleans(),
            },
        ),
    },
)


@settings(max_examples=60, deadline=None)
@given(some)
def test_written_and_read_again_it_is_the_same(values):
    recipe = parse({"method": "muse", **values})
    assert parse(tomllib.loads(write(recipe))) == recipe


def test_a_recipe_is_complete():
    recipe = parse({"method": "muse"})
    assert recipe.options == {n: o.default for n, o in options(METHODS["muse"]).items()}
    written = tomllib.loads(write(recipe))
    unset = {n for n in Recipe.model_fields if getattr(recipe, n) is None}
    assert written.keys() == Recipe.model_fields.keys() - unset


def test_every_key_is_described():
    assert all(field.description for field in Recipe.model_fields.values())


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        parse({}).epochs = 3


def test_parse_leaves_its_input_alone():
    values = {"method": "muse", "options": {"combine": "mul"}}
    parse(values)
    assert values == {"method": "muse", "options": {"combine": "mul"}}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"epoch": 3}, r"a recipe has no key 'epoch' \(did you mean 'epochs'\?\)"),
        ({"method": "muze"}, r"no method 'muze' \(did you mean 'muse'\?\)"),
        ({"options": {"combin": "mul"}}, r"'muse' has no option 'combin' \(did you mean 'combine'"),
        ({"method": "byot", "options": {"combine": "mul"}}, "'byot' has no option 'combine'"),
        ({"method": "ce", "options": {"alpha": 1}}, "'ce' has no option 'alpha'"),
        ({"epochs": "many"}, "epochs = 'many' does not fit: .*integer"),
        ({"epochs": 0}, "epochs = 0 does not fit: .*greater than or equal to 1"),
        ({"epochs": 1.5}, "epochs = 1.5 does not fit"),
        ({"val_fraction": 1.0}, r"val_fraction = 1\.0 does not fit: .*less than 1"),
        ({"lr": 0}, "lr = 0 does not fit"),
        ({"lr": object()}, "lr = object does not fit"),
        ({"lr": float("nan")}, "lr = nan does not fit"),
        ({"optimizer": "adamm"}, "there is no optimizer 'adamm' .did you mean 'adam'"),
        ({"flip": "perhaps"}, "flip = 'perhaps' does not fit"),
        ({"milestones": ["a"]}, "milestones = 'a' does not fit"),
        ({"options": 3}, "options = 3 does not fit"),
        ({"model": 3}, "model = 3 does not fit"),
        ({"options": {"combine": "both"}}, "method 'muse': combine = 'both' .*'add' or 'mul'"),
        (
            {"options": {"information_weight": "lots"}},
            "method 'muse': information_weight = 'lots' does not fit",
        ),
        ({"options": {"critic_width": 1.5}}, "method 'muse': critic_width = 1.5 does not fit"),
    ],
)
def test_faults_are_told_in_one_sentence(values, told):
    with pytest.raises(ConfigError, match=told) as fault:
        parse({"method": "muse", **values})
    sentence = str(fault.value)
    assert "\n" not in sentence
    assert "pydantic" not in sentence
    assert fault.value.__cause__ is None


def test_options_are_converted_to_their_type():
    recipe = parse({"method": "muse", "options": {"information_weight": 1}})
    chosen = recipe.options["information_weight"]
    assert chosen == 1.0
    assert isinstance(chosen, float)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("-2", -2),
        ("true", True),
        ("False", False),
        ("True", True),
        ("none", None),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ('"3"', "3"),
        ("add", "add"),
        ("cifar/resnet18", "cifar/resnet18"),
        ("folder:/tmp/my images", "folder:/tmp/my images"),
        ("layer1,layer2", "layer1,layer2"),
        ("", ""),
    ],
)
def test_literal(text, want):
    got = literal(text)
    assert got == want
    assert type(got) is type(want)


@pytest.mark.parametrize("text", ["a\nepochs = 3", "data # 1", "a = 1"])
def test_literal_is_one_value(text):
    """What a shell hands over is a value, never a piece of a file."""
    assert literal(text) == text


@pytest.mark.parametrize(
    ("annotation", "want"),
    [
        (float, "float"),
        (bool, "bool"),
        (int | None, "int | none"),
        (Literal["add", "mul"], "add | mul"),
        (Literal["all", "roll"] | None, "all | roll | none"),
    ],
)
def test_type_name(annotation, want):
    assert type_name(annotation) == want


def test_read_says_what_is_wrong_with_a_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read: No such file"):
        read(tmp_path / "nowhere.toml")
    (tmp_path / "broken.toml").write_text("epochs = = 3")
    with pytest.raises(ConfigError, match=r"broken\.toml is not TOML"):
        read(tmp_path / "broken.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml is not TOML"):
        read(tmp_path / "binary.toml")


def test_read_does_not_check(tmp_path):
    (tmp_path / "r.toml").write_text('epochs = 3\n[options]\ncombine = "mul"\n', encoding="utf-8")
    assert read(tmp_path / "r.toml") == {"epochs": 3, "options": {"combine": "mul"}}


def test_recipes_of_the_package_parse():
    for path in RECIPES:  # a loop: there may be none yet
        recipe = parse(read(path))
        assert parse(tomllib.loads(write(recipe))) == recipe, path.name


def test_a_path_serves_where_a_text_does():
    recipe = typed_recipe({"weights": Path("w.safetensors"), "imports": [Path("a.py"), "b.py"]})
    assert (recipe.weights, list(recipe.imports)) == ("w.safetensors", ["a.py", "b.py"])


@pytest.mark.parametrize("key", ["data", "extra", "weights", "teacher", "data_root"])
@pytest.mark.parametrize("value", ["~/set", "folder:~/set", "csv:~/a.csv", "wds:~/a-{0..3}.tar"])
def test_the_home_folder_is_meant_by_a_tilde(key, value, monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    assert getattr(typed_recipe({key: value}), key) == value.replace("~", "/home/anna")


@pytest.mark.parametrize("value", ["digits", "folder:a~b", "pretrained", "hf:beans", "folder:./~x"])
def test_other_paths_stay_as_they_are(value):
    assert typed_recipe({"data": value}).data == value
