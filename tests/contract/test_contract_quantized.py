"""Every method trains a student in simulated int8, and leaves a plain one."""

import pytest
import torch
from contract_cases import DEFAULTS, Case, advance, moment, over, same, usual
from test_contract_terms import unreached

from selfdistill.core import METHODS, ConfigError, Frozen, Method, trained_state
from selfdistill.core.fake_quantization import RANGE, fake_quantized
from selfdistill.export.extract_predictor import extract_predictor, learned_ranges
from selfdistill.modules.exits import EarlyExit
from selfdistill.recipe.quantization import quantize_method

LEARNING = [case for case in DEFAULTS if not METHODS[case.name].needs.trained_student]
# One of each kind, and those that copy or cut the student.
FAST = (
    "muse", "frskd", "kd", "dml", "snapshot", "mixskd", "kd3", "byot", "mimkd",
)  # fmt: skip
every_learning = over(LEARNING, lambda case: usual(case) and case.name in FAST)


def quantized(case: Case, seed: int = 0) -> Method:
    method = case.method(seed)
    quantize_method(method, case.name, method.task.example)
    return method


def stepped(case: Case, steps: int = 2) -> Method:
    return advance(quantized(case), case, steps)


@every_learning
def test_gradients_reach_all_parameters(case):
    method, steps = quantized(case), []
    for cycle in range(method.cycles):
        steps += [method(case.batch(seed), moment(seed)) for seed in range(3)]
        if method.cycles > 1:
            method.after_step(moment(-(-1000 * (cycle + 1) // method.cycles) - 1))
    assert all(torch.isfinite(loss) for step in steps for loss in step.losses.values())
    assert unreached(method, steps) == []


@every_learning
def test_a_resume_is_exact(case):
    method, other = stepped(case), quantized(case, seed=1)
    missing, unexpected = other.load_state_dict(trained_state(method), strict=False)
    frozen = [f"{n}." for n, m in method.named_modules() if isinstance(m, Frozen)]
    assert not unexpected
    assert all(name.startswith(tuple(frozen)) for name in missing)
    batch = case.batch(9)
    first, second = (m(batch, moment(9)).losses for m in (method, other))
    assert same(first, second)
    first, second = (m.eval().predict(batch.inputs) for m in (method, other))
    assert same(first, second)
    assert same(trained_state(method), trained_state(other))


@every_learning
def test_student_and_exits_alone_simulate_int8_and_are_exported_plain(case):
    method, plain = stepped(case), case.method()
    exported = {
        name: network
        for name, network in method.predictors().items()
        if name == "student" or isinstance(network, EarlyExit)
    }
    inside = {id(m) for network in exported.values() for m in network.modules()}
    assert all(id(layer) in inside for layer in fake_quantized(method).values())
    for frozen in (m for m in method.modules() if isinstance(m, Frozen)):
        assert not fake_quantized(frozen)
    state, usual = method.state_dict().keys(), plain.state_dict().keys()
    assert {key for key in state if not key.endswith(f".{RANGE}")} == usual
    for name in exported:
        network = extract_predictor(method, name)
        assert not fake_quantized(network)
        assert not [key for key in network.state_dict() if key.endswith(RANGE)]
        assert learned_ranges(method, name).keys() <= dict(network.named_modules()).keys()
    assert fake_quantized(method)  # copies were made plain
    if not case.composite:
        case.network(seed=9).load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    "case", [case for case in DEFAULTS if METHODS[case.name].needs.trained_student], ids=str
)
def test_a_student_that_does_not_learn_is_refused(case):
    with pytest.raises(ConfigError, match="leave --quantize out"):
        quantized(case)
