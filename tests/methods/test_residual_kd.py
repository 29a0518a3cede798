"""Student and assistant: terms against numpy, who learns when, and what they cost together."""

import copy

import numpy as np
import pytest
import torch
from offline_pairs import offline, teacher_net
from torch import Tensor, nn

from selfdistill.core import ConfigError, Progress
from selfdistill.costs.macs import network_cost
from selfdistill.modules.composite import CompositeNetwork


def moment(step: int, total: int) -> Progress:
    return Progress(*map(torch.tensor, (0, 0, step, total)))


def means(parts: nn.Module, adapters: list[nn.Module], x: Tensor) -> list[np.ndarray]:
    maps = []
    for part, adapter in zip(parts, adapters, strict=True):
        x = part(x)
        maps.append(adapter(x).detach().double().numpy())
    return maps


def test_terms_equal_numpy(tiny_net, tiny_task, batch, progress):
    options = {"schedule": "joint", "feature_weight": 3.0, "residual_weight": 0.5}
    method = offline("residual-kd", tiny_net, tiny_task, **options)
    step, network = method(batch, progress), method.student
    _, features = method.teacher.forward_features(batch.inputs)
    targets = [x.double().numpy() for x in features.values()]
    adapters = [[*method.student_adapters, network.adapters[0]],
                [*method.assistant_adapters, network.adapters[1]]]  # fmt: skip
    student = means(network.student, adapters[0], batch.inputs)
    assistant = means(network.assistant, adapters[1], batch.inputs)
    for i, (s, a, t) in enumerate(zip(student, assistant, targets, strict=True), 1):
        assert step.losses[f"student/{i}"].item() == pytest.approx(3 * ((s - t) ** 2).mean(), 1e-4)
        residual = ((a - (t - s)) ** 2).mean()
        assert step.losses[f"assistant/{i}"].item() == pytest.approx(0.5 * residual, 1e-4)
    pooled = (student[-1] + assistant[-1]).mean((2, 3))
    weight, bias = (p.detach().double().numpy() for p in network.head[-1].parameters())
    np.testing.assert_allclose(
        step.outputs.detach(), pooled @ weight.T + bias, rtol=1e-4, atol=1e-5
    )
    assert torch.equal(step.outputs, network(batch.inputs))  # what is trained is what is deployed
    assert step.losses["task"] == tiny_task.loss(step.outputs, batch.targets)


def test_nothing_is_left_where_all_features_are_zero(tiny_net, tiny_task, batch, progress):
    method = offline("residual-kd", tiny_net, tiny_task, schedule="joint")
    network = method.student
    for module in (method.teacher, network.student, network.assistant):
        for parameter in module.parameters():
            parameter.data.zero_()
    losses = method(batch, progress).losses
    assert all(loss == 0 for name, loss in losses.items() if name != "task")


def test_costs_no_more_than_the_given_network(tiny_net, tiny_task):
    given = network_cost(tiny_net, tiny_task.example)
    for fraction in (0.1, 0.25, 0.5):
        method = offline("residual-kd", tiny_net, tiny_task, assistant_fraction=fraction)
        student = method.predictors()["student"]
        assert isinstance(student, CompositeNetwork)
        assert "assistant of" in student.description
        assert 0.6 * given.macs < network_cost(student, tiny_task.example).macs <= given.macs
        assistant = nn.Sequential(*student.assistant)
        assert network_cost(assistant, tiny_task.example).macs <= fraction * given.macs


def test_the_student_is_frozen_while_the_assistant_learns(tiny_net, tiny_task, batch):
    method = offline("residual-kd", tiny_net, tiny_task).train()
    student = [f"student.{i}" for i in range(4)] + ["adapters.0"]
    assistant = [f"assistant.{i}" for i in range(4)] + ["adapters.1"]

    def parts(progress: Progress) -> set[str]:
        method.zero_grad(set_to_none=True)
        method(batch, progress).total.backward()
        names = [n for n, p in method.student.named_parameters() if p.grad is not None]
        return {"head" if n.startswith("head") else ".".join(n.split(".")[:2]) for n in names}

    assert parts(moment(0, 10)) == {*student, "head"}
    inputs = torch.randn(4, 3, 16, 16)
    alone = method.student.eval()(inputs)
    for parameter in method.student.assistant.parameters():
        parameter.data.mul_(2.0)
    assert torch.equal(method.student(inputs), alone)  # an assistant that has not begun
    method.train()
    method.after_step(moment(3, 10))
    assert method.student_learns
    method.after_step(moment(4, 10))
    assert not method.student_learns
    before = copy.deepcopy(method.student.student.state_dict())
    assert parts(moment(5, 10)) == {*assistant, "head"}
    after = method.student.student.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())  # statistics, too
    assert not torch.equal(method.student.eval()(inputs), alone)


def test_an_assistant_that_grows_tap_by_tap(tiny_net, tiny_task, batch):
    method = offline("residual-kd", tiny_net, tiny_task, schedule="progressive").train()
    assert method.cycles == 5
    for cycle in range(1, 5):
        method.after_step(moment(2 * cycle - 1, 10))
        assert int(method.cycle) == cycle
        method.zero_grad(set_to_none=True)
        losses = method(batch, moment(2 * cycle, 10)).losses
        sum(losses.values()).backward()
        names = (n for n, p in method.named_parameters() if p.grad is not None)
        learned = {name for name in names if "assistant" in name}
        own = (f"student.assistant.{cycle - 1}.", f"assistant_adapters.{cycle - 1}.")
        assert learned
        assert all(name.startswith(own) for name in learned)
        assert all(losses[f"assistant/{i}"] == 0 for i in range(cycle + 1, 5))
        modes = [part.training for part in method.student.assistant]
        assert modes == [i >= cycle - 1 for i in range(4)]
        assert bool(method.student.assistant_counts) == (cycle == 4)


def test_the_phase_is_restored(tiny_net, tiny_task):
    options = {"schedule": "progressive"}
    method = offline("residual-kd", copy.deepcopy(tiny_net), tiny_task, **options).train()
    method.after_step(moment(3, 10))
    other = offline("residual-kd", tiny_net, tiny_task, **options).train()
    other.load_state_dict(method.state_dict())
    assert (other.student_learns, other.learning_taps) == (False, range(2, 3))
    assert not other.student.student[0].training


def test_a_teacher_of_larger_maps(tiny_net, tiny_task, batch, progress):
    teacher = teacher_net(strides=(1, 1, 2, 2))
    method = offline("residual-kd", tiny_net, tiny_task, teacher, schedule="joint").train()
    assert torch.isfinite(method(batch, progress).total)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"assistant_fraction": 1.0}, "assistant_fraction=1 must be between 0 and 1"),
        ({"assistant_fraction": 0.0}, "must be between 0 and 1"),
        ({"residual_weight": 0.0}, "must be above 0"),
        ({"taps": ["stage2", "stage4"]}, "student has 2 taps and teacher 4"),
    ],
)
def test_refused(options, message, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=message):
        offline("residual-kd", tiny_net, tiny_task, **options)


def test_a_teacher_whose_channels_alone_cost_too_much(tiny_net, tiny_task):
    teacher = teacher_net((8, 12, 16, 20_000))
    with pytest.raises(ConfigError, match="no narrower copy of Sequential is both a network and"):
        offline("residual-kd", tiny_net, tiny_task, teacher)
