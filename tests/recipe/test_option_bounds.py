"""Numbers of every method keep to the bounds that their names promise."""

import pytest

import selfdistill.methods  # noqa: F401  registers them
from selfdistill.core import METHODS, ConfigError, options
from selfdistill.recipe.build_method import build_method
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


BEYOND = {
    "_lr_scale": (0.0, -1.0),
    "_concentration": (0.0, -1.0),
    "_regularization": (0.0, -1.0),
    "_width": (0.0, -1.0),
    "_fraction": (-0.1, 1.1),
    "momentum": (-0.5, 1.0, 1.5),
}


@pytest.mark.parametrize("end", list(BEYOND))
def test_numbers_are_bounded_by_their_kind(end):
    found = [(n, o) for n in METHODS for o in options(METHODS[n]) if o.endswith(end)]
    assert found
    for name, option in found:
        whole = options(METHODS[name])[option].annotation is not float
        for value in BEYOND[end]:
            with pytest.raises(ConfigError, match=rf"'{name}': {option} = \S+ must be "):
                check_options(name, {option: int(value) if whole else value})


@pytest.mark.parametrize("value", [-0.5, 1.5])
def test_both_weights_of_byot_are_0_or_above(value, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=r"soft_weight"):
        build_method("byot", tiny_net, tiny_task, chosen={"soft_weight": value})


@pytest.mark.parametrize("value", [0, -3])
def test_widths_are_bounded(value):
    with pytest.raises(ConfigError, match=f"'muse': critic_width = {value} must be above 0"):
        check_options("muse", {"critic_width": value})


def test_of_joined_methods_too():
    with pytest.raises(ConfigError, match="'cskd': temperature = 0 must be above 0"):
        check_options("muse+cskd", {"cskd.temperature": 0.0})


def test_every_method_with_a_soft_loss_is_here():
    assert {"kd", "dkd", "exits", "muse", "frskd", "dist"} <= {name for name, _ in NUMBERS}
