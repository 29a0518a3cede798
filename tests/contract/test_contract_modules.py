"""A method as a module: its state, its predictors, its copies, and the student that it leaves."""

import copy
import gc
from typing import Any

import pytest
import torch
from contract_cases import (
    DEFAULTS,
    Case,
    advance,
    every_case,
    every_default,
    moment,
    same,
)
from torch import Tensor

from selfdistill.core import METHODS, Frozen, Method, trained_state
from selfdistill.models import build
from selfdistill.modules.composite import composite_description
from selfdistill.recipe.build_method import build_method
from selfdistill.tasks import Classification, check_network


def trained(case: Case, steps: int = 2) -> Method:
    """A method whose weights and statistics are no longer those it was born with."""
    return advance(case.method(), case, steps)


def outputs(method: Method, inputs: Tensor) -> dict[str, Any]:
    method.eval()
    with torch.no_grad():
        return method.predict(inputs)


@every_case
def test_state_carries_everything(case):
    method, other = trained(case), case.method(seed=1)
    missing, unexpected = other.load_state_dict(trained_state(method), strict=False)
    frozen = [f"{n}." for n, m in method.named_modules() if isinstance(m, Frozen)]
    assert not unexpected
    assert all(name.startswith(tuple(frozen)) for name in missing)
    batch = case.batch(9)
    first, second = (m(batch, moment(9)).losses for m in (method, other))
    assert same(first, second)
    assert same(outputs(method, batch.inputs), outputs(other, batch.inputs))


@every_case
def test_nothing_frozen_moves(case):
    method = case.method()
    frozen = [m for m in method.modules() if isinstance(m, Frozen) and not m.saved]
    assert bool(frozen) == (METHODS[case.name].kind == "offline")
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in frozen]
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1, weight_decay=0.1)
    for i in range(3):
        optimizer.zero_grad()
        method(case.batch(i), moment(i)).total.backward()
        optimizer.step()
        method.after_step(moment(i))
        method.after_epoch([case.batch(i)])
        method.train()
    for module, was in zip(frozen, before, strict=True):
        assert all(p.grad is None for p in module.parameters())
        assert same(was, dict(module.state_dict()))


@every_case
def test_predict_is_each_predictor_alone(case):
    method, inputs = trained(case).eval(), case.batch(9).inputs
    together, alone = outputs(method, inputs), method.predictors()
    assert "student" in alone
    assert list(together) == list(alone)
    with torch.no_grad():
        assert same(together, {name: network(inputs) for name, network in alone.items()})


@every_case
def test_student_is_the_network_that_went_in(case):
    network = case.network()
    keys = list(network.state_dict())
    method = case.method(network=network)
    student = method.predictors()["student"]
    if case.composite:
        assert student is method.student
        assert composite_description(method)
        state = {f"student.{name}" for name in trained_state(student)}
        assert state <= trained_state(method).keys()  # under the student's names, no others
        return
    assert student is network
    assert list(student.state_dict()) == keys


@every_case
def test_student_answers_alike_with_and_without_its_method(case):
    gc.freeze()  # what was there before has not to be searched
    method, inputs = trained(case).eval(), case.batch(9).inputs
    inside = outputs(method, inputs)["student"]
    student = method.predictors()["student"]
    del method
    gc.collect()
    gc.unfreeze()
    other = case.network(seed=3)
    other = case.method(network=other).predictors()["student"] if case.composite else other
    other.eval().load_state_dict(student.state_dict())
    with torch.no_grad():
        assert same(student(inputs), inside)
        assert same(other(inputs), inside)


@every_case
def test_deep_copy_is_equal_and_independent(case):
    method = trained(case)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    twin = copy.deepcopy(method)
    mine, its = (m(case.batch(5), moment(5)) for m in (method, twin))
    assert same(mine.losses, its.losses)
    its.total.backward()
    assert all(p.grad is None for p in method.parameters())
    torch.optim.SGD(twin.param_groups(), lr=1.0).step()
    unmoved = [torch.equal(p, before[name]) for name, p in method.named_parameters()]
    moved = [not torch.equal(p, before[name]) for name, p in twin.named_parameters()]
    assert all(unmoved)
    assert any(moved)


@every_default
@pytest.mark.parametrize("taps", [["stage2", "stage4"], ["stage1", "stage2", "stage3", "stage4"]])
def test_any_number_of_taps(case, taps):
    method = case.method(taps=taps)
    step = method(case.batch(), moment())
    step.total.backward()
    assert torch.isfinite(step.total)
    names = [name for name in method.predictors() if name.startswith("exit")]
    assert len(names) in (0, len(taps) - 1)


def all_reached(method: Method) -> bool:
    """Whether all parameters have a gradient, or those of the first part of a training in parts."""
    trained = [p for p in method.parameters() if p.requires_grad]
    reached = [p.grad is not None for p in trained]
    return any(reached) if method.cycles > 1 else all(reached)


CLASSIFIED = [
    case
    for case in DEFAULTS
    if case.task == "classification" and not METHODS[case.name].needs.distillation_token
]
FOREIGN = {
    "timm/regnetx_002": {},
    "timm/convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "timm/vit_tiny_patch16_224": {
        "img_size": 32,
        "patch_size": 8,
        "depth": 4,
        "embed_dim": 48,
        "num_heads": 2,
    },
    "torchvision/shufflenet_v2_x0_5": {},
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if not FOREIGN[n] else ()) for n in FOREIGN]
)
def test_networks_nobody_adapted(name):
    import timm

    torch.manual_seed(0)
    if name.startswith("timm/"):
        network = timm.create_model(name[5:], num_classes=5, **FOREIGN[name])
    else:
        network = build(name, num_classes=5)
    task = Classification("abcde", torch.zeros(2, 3, 32, 32))
    images = torch.randn(4, 3, 32, 32)
    check_network(network, task)
    for case in CLASSIFIED:
        if case.name == "residual-kd" and "vit" in name:
            continue  # whose narrower copies are no networks; tests/modules/test_narrowing.py
        chosen = {"tap": 2} if case.name == "nfd" else {}  # the last map may be a single cell
        method = build_method(
            case.name, copy.deepcopy(network), task, chosen=chosen, **case.companions()
        ).train()
        batch = case.batch(size=4)
        views = tuple(torch.randn_like(images) for _ in batch.views)
        same_class_inputs = None if batch.same_class_inputs is None else torch.randn_like(images)
        batch = batch._replace(
            inputs=images, views=views, same_class_inputs=same_class_inputs, extra=images
        )
        step = method(batch, moment())
        step.total.backward()
        assert torch.isfinite(step.total)
        assert all_reached(method)
        assert list(outputs(method, images))[-1] == "student"


def test_registered_networks_by_name():
    network = build("cifar/resnet10_w16", num_classes=5, in_channels=3)
    task = Classification("abcde", torch.zeros(2, 3, 16, 16))
    for case in CLASSIFIED:
        method = build_method(case.name, copy.deepcopy(network), task, **case.companions()).train()
        method(case.batch(), moment()).total.backward()
        assert all_reached(method)
