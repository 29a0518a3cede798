"""Methods by name, and what their signatures and docstrings say."""

import inspect

import pytest

import selfdistill.methods  # noqa: F401  registers them all
from selfdistill.core import METHODS, ConfigError, Method, Registry, options
from selfdistill.core.registry import argument_meanings


class Example(Method):
    """Something.

    Args:
        student: a network.
        alpha, beta: two weights
            on two lines: with a colon.
        style: "a" or "b".

    Raises:
        ConfigError: never.
    """

    def __init__(self, student, *, alpha: float = 0.5, beta: float, style: str = "a"):
        super().__init__()

    def forward(self, batch, progress): ...


def test_options_are_the_keyword_only_parameters():
    result = options(Example)
    assert list(result) == ["alpha", "beta", "style"]
    assert result["alpha"].annotation is float
    assert result["alpha"].default == 0.5
    assert result["beta"].default is inspect.Parameter.empty
    assert result["beta"].meaning == "two weights on two lines: with a colon."
    assert result["alpha"].meaning == result["beta"].meaning
    assert result["style"].meaning == '"a" or "b".'


def test_a_docstring_without_arguments_means_nothing():
    assert "alpha" not in argument_meanings("Just a line.")


def test_names_are_sorted_and_counted():
    registry = Registry()
    registry.add("b")(Example)
    registry.add("a")(Example)
    assert list(registry) == ["a", "b"]
    assert len(registry) == 2
    assert registry["a"] is Example


def test_add_hands_the_class_back():
    assert Registry().add("x")(Example) is Example


def test_a_name_is_given_once():
    registry = Registry()
    registry.add("a")(Example)
    with pytest.raises(ValueError, match="two methods are named 'a'"):
        registry.add("a")(Example)


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(ConfigError, match=r"no method 'muze' \(did you mean 'muse'\?\)"):
        METHODS["muze"]


def test_a_name_like_no_other_gets_the_list():
    with pytest.raises(ConfigError, match=r"there are: .*byot.*ce.*crd"):
        METHODS["xyzzy"]


def test_those_of_the_package_are_there():
    assert {"byot", "ce", "exits", "muse"} <= set(METHODS)


@pytest.mark.parametrize("name", ["byot", "ce", "exits", "muse"])
def test_every_parameter_is_explained(name):
    meanings = argument_meanings(inspect.getdoc(METHODS[name]))
    parameters = list(inspect.signature(METHODS[name]).parameters)
    assert parameters == [p for p in meanings if p in parameters]
    assert set(parameters) == set(meanings)
    assert all(meanings.values())


@pytest.mark.parametrize("name", list(METHODS))
def test_every_option_is_explained(name):
    for option in options(METHODS[name]).values():
        assert option.meaning, option.name
        assert option.default is not inspect.Parameter.empty, option.name
