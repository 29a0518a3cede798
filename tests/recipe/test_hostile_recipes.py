"""Recipes as nobody means them: one sentence each, in little time and memory."""

import os
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.core import METHODS, ConfigError, options
from selfdistill.recipe.schema import Recipe, literal, parse, read, read_toml

WRONG_TYPES = [3, 2.5, True, ["muse"], {"a": 1}, None]


@pytest.mark.parametrize("value", WRONG_TYPES, ids=repr)
@pytest.mark.parametrize("key", ["method", "task", "model", "data", "imports", "options", "taps"])
def test_a_value_of_a_wrong_type(key, value):
    if (key, value) in [("imports", ["muse"]), ("options", {"a": 1})]:
        pytest.skip("of the right type")
    with pytest.raises(ConfigError, match=f"{key} = .* does not fit"):
        parse({key: value})


@pytest.mark.parametrize("key", ["seed", "epochs", "batch_size", "image_size", "num_workers"])
def test_an_integer_beyond_a_tensor_s(key):
    with pytest.raises(ConfigError, match=f"{key} = 9{{10,}}"):
        parse({key: 10**40 - 1})


def test_an_option_beyond_a_tensor_s():
    with pytest.raises(ConfigError, match="critic_width = 1"):
        parse({"method": "muse", "options": {"critic_width": 10**30}})


@pytest.mark.parametrize("key", ["data", "weights", "teacher", "model", "imports"])
def test_a_zero_byte(key):
    with pytest.raises(ConfigError, match=f"{key} holds a zero byte"):
        parse({key: ["a\0b"] if key == "imports" else "a\0b"})


def test_a_long_key_is_not_repeated_whole():
    with pytest.raises(ConfigError) as error:
        parse({"k" * 10**6: 1})
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a = " + b"[" * 20_000 + b"]" * 20_000, "nested too deeply"),
        (b".".join([b"a"] * 100_000) + b" = 1", "more dots"),
        (b"\xff\xfe", "codec"),
        (b"seed = 1" + b"0" * 5000, "digits"),
        (b"seed = ", "Invalid value"),
    ],
)
def test_a_document_that_is_none(content, reason):
    with pytest.raises(ValueError, match=reason):
        read_toml(content)


def test_a_byte_order_mark(tmp_path):
    (tmp_path / "r.toml").write_bytes(b"\xef\xbb\xbfseed = 4\n")
    assert read(tmp_path / "r.toml") == {"seed": 4}


def test_a_file_that_is_far_too_large(tmp_path):
    with (tmp_path / "r.toml").open("wb") as file:
        file.truncate(1 << 33)  # takes no place on the disk
    with pytest.raises(ConfigError, match="larger than 1 MB"):
        read(tmp_path / "r.toml")


def test_a_file_that_would_be_read_for_ever(tmp_path, time_limit):
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zeros.toml").symlink_to("/dev/zero")
    for name, reason in (("pipe.toml", "regular"), ("zeros.toml", "regular"), (".", "a folder")):
        with time_limit(20), pytest.raises(ConfigError, match=reason):
            read(tmp_path / name)


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 5000, "a.b.c", "", "=", "{", '"'])
def test_a_setting_that_is_no_value_is_a_text(text):
    assert literal(text) == text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [*Recipe.model_fields, *options(METHODS["muse"]), "", "nothing"]


def parse_anything(values):
    with suppress(ConfigError):
        parse(values)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), anything, max_size=4))
def test_no_recipe_raises_anything_else(values):
    parse_anything(values)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.sampled_from(KEYS), anything, max_size=6),
    st.sampled_from([*METHODS, "kd+at", "muse+cskd", "+", "muse+", "a+b"]),
)
def test_no_recipe_of_any_method_raises_anything_else(values, method):
    parse_anything({**values, "method": method})
