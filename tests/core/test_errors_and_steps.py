"""What goes wrong has a code and a hint; what a step costs is the sum of its terms."""

import pytest
import torch

from selfdistill import core
from selfdistill.core import ConfigError, SelfdistillError, StepOutput, nearest

CODES = {
    "SelfdistillError": 1,
    "ConfigError": 2,
    "RunBusyError": 3,
    "DataError": 4,
    "DivergenceError": 5,
    "ArtifactError": 6,
    "ResourceError": 7,
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_exit_codes(name, code):
    error = getattr(core, name)
    assert issubclass(error, SelfdistillError)
    assert error("why").exit_code == code
    assert str(error("why")) == "why"


def test_python_users_may_catch_what_they_know():
    assert issubclass(core.ConfigError, ValueError)
    assert issubclass(core.DataError, ValueError)
    assert issubclass(core.DivergenceError, ArithmeticError)
    assert issubclass(core.ResourceError, OSError)
    with pytest.raises(ValueError, match="x"):
        raise ConfigError("x")


@pytest.mark.parametrize(
    ("word", "choices", "want"),
    [
        ("layr4", ["layer3", "layer4"], " (did you mean 'layer4'?)"),
        ("zzz", ["a", "b"], " (there are: a, b)"),
        ("zzz", [], ""),
        (
            "zzz",
            (str(i) for i in range(20)),
            " (there are: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …)",
        ),
    ],
)
def test_nearest(word, choices, want):
    assert nearest(word, choices) == want


def test_total_is_the_sum_of_the_terms():
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    step = StepOutput(None, {"task": a * b, "hint": 4 * b}, {"watched": torch.tensor(100.0)})
    assert step.total.item() == 18
    step.total.backward()
    assert (a.grad.item(), b.grad.item()) == (3, 6)


def test_total_of_one_term_is_that_term():
    assert StepOutput(None, {"task": torch.tensor(0.5)}).total.item() == 0.5


def test_total_keeps_double_precision():
    assert StepOutput(None, {"task": torch.tensor(0.1, dtype=torch.double)}).total.item() == 0.1


def test_a_step_watches_nothing_unless_told():
    assert dict(StepOutput(None, {"task": torch.tensor(1.0)}).monitors) == {}
