"""A frozen network: it neither moves nor counts, and gradients pass through it."""

import copy

import torch
from torch import nn

from selfdistill.core import Frozen, trained_state


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = network(), Frozen(network())


def test_train_does_nothing():
    frozen = Frozen(network().train())
    assert frozen.train() is frozen
    assert not any(m.training for m in frozen.network.modules())
    pair = Pair().train()
    assert pair.student.training
    assert not any(m.training for m in pair.teacher.network.modules())


def test_statistics_and_outputs_stay():
    pair = Pair().train()
    before = copy.deepcopy(pair.teacher.state_dict())
    x = torch.randn(8, 3)
    first = pair.teacher(x)
    assert torch.equal(first, pair.teacher(x))
    assert all(torch.equal(v, before[k]) for k, v in pair.teacher.state_dict().items())


def test_gradient_passes_to_the_input_and_no_further():
    frozen, x = Frozen(network()), torch.randn(8, 3, requires_grad=True)
    frozen(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in frozen.parameters())


def test_arguments_are_handed_on():
    class Scaled(nn.Module):
        def forward(self, x, *, by=1):
            return by * x

    assert Frozen(Scaled())(torch.ones(1), by=3) == 3


def test_trained_state_leaves_the_teacher_out():
    pair = Pair()
    assert trained_state(pair).keys() == {f"student.{k}" for k in pair.student.state_dict()}


def test_trained_state_of_a_frozen_network_is_empty():
    assert trained_state(Frozen(network())) == {}


def test_trained_state_of_a_plain_network_is_its_state():
    plain = network()
    assert trained_state(plain).keys() == plain.state_dict().keys()


def test_a_name_that_only_begins_alike_stays():
    both = nn.ModuleDict({"net": Frozen(nn.Linear(1, 1)), "net2": nn.Linear(1, 1)})
    assert trained_state(both).keys() == {"net2.weight", "net2.bias"}


def test_a_copy_is_frozen_too():
    pair = copy.deepcopy(Pair()).train()
    assert not pair.teacher.network.training
    assert not any(p.requires_grad for p in pair.teacher.parameters())
