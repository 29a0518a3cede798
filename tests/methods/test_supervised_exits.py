"""Exits that learn from labels and the last exit only."""

import pytest
import torch
from torch import nn

from selfdistill.core import METHODS, options
from selfdistill.taps import Taps

PAIRS = (1, 2, 3)


def exits(tiny_net, tiny_task, **keywords):
    torch.manual_seed(0)
    student = Taps(tiny_net, example=tiny_task.example)
    return METHODS["exits"](student, tiny_task, **keywords)


@pytest.mark.parametrize("supervised", [0.7, 0.2])
def test_cross_entropies_and_their_weights(supervised, tiny_net, tiny_task, batch, now):
    method = exits(tiny_net, tiny_task, supervised=supervised).eval()
    losses = method(batch, now).losses
    outputs = method.predict(batch.inputs)
    ce = nn.functional.cross_entropy
    torch.testing.assert_close(losses["task"], ce(outputs["student"], batch.targets))
    for i in PAIRS:
        want = supervised * ce(outputs[f"exit{i}"], batch.targets)
        torch.testing.assert_close(losses[f"task/{i}"], want)


@pytest.mark.parametrize(
    ("keywords", "kinds"),
    [
        ({}, {"task", "soft"}),
        ({"soft": 0.0}, {"task"}),
        ({"supervised": 0.0}, {"soft"}),
    ],
)
def test_terms(keywords, kinds, tiny_net, tiny_task, batch, now):
    method = exits(tiny_net, tiny_task, **keywords)
    step = method(batch, now)
    assert step.losses.keys() == {"task", *(f"{kind}/{i}" for kind in kinds for i in PAIRS)}
    step.total.backward()
    assert all(p.grad is not None for p in method.parameters())


def test_is_muse_without_information(tiny_net, tiny_task, batch, now):
    method = exits(tiny_net, tiny_task).eval()
    muse = METHODS["muse"](method.student, tiny_task, information=0.0).eval()
    muse.exits.load_state_dict(method.exits.state_dict())
    ours, theirs = method(batch, now).losses, muse(batch, now).losses
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_one_pass_says_what_each_exit_says(tiny_net, tiny_task, batch):
    method = exits(tiny_net, tiny_task).eval()
    together = method.predict(batch.inputs)
    for name, network in method.predictors().items():
        assert torch.equal(network(batch.inputs), together[name])


def test_defaults():
    found = {o.name: o.default for o in options(METHODS["exits"]).values()}
    assert found == {"supervised": 0.7, "soft": 0.3, "temperature": 3.0, "bottleneck": "slim"}
