"""Weights and temperatures of every method keep to the bounds that their names promise."""

import pytest

import selfdistill.methods  # noqa: F401  registers them
from selfdistill.core import METHODS, ConfigError, options
from selfdistill.recipe.options import check_options

NUMBERS = [
    (name, option.name)
    for name in METHODS
    for option in options(METHODS[name]).values()
    if option.name.endswith(("_weight", "temperature"))
]


@pytest.mark.parametrize("name", list(METHODS))
def test_weights_and_temperatures_are_bounded(name):
    for option in (o for n, o in NUMBERS if n == name):
        if option.endswith("temperature"):
            for value in (0.0, -4.0):
                with pytest.raises(ConfigError, match=rf"'{name}': {option} = .* above 0"):
                    check_options(name, {option: value})
        else:
            with pytest.raises(ConfigError, match=rf"'{name}': {option} = -1 must be 0 or above"):
                check_options(name, {option: -1.0})
            check_options(name, {option: 0.0})


@pytest.mark.parametrize("value", [0, -3])
def test_widths_are_bounded(value):
    with pytest.raises(ConfigError, match=f"'muse': critic_width = {value} must be above 0"):
        check_options("muse", {"critic_width": value})


def test_of_joined_methods_too():
    with pytest.raises(ConfigError, match="'cskd': temperature = 0 must be above 0"):
        check_options("muse+cskd", {"cskd.temperature": 0.0})


def test_every_method_with_a_soft_loss_is_here():
    assert {"kd", "dkd", "exits", "muse", "frskd", "dist"} <= {name for name, _ in NUMBERS}
