"""A frozen network: it neither moves nor counts, and gradients pass through it."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from selfdistill.core import Frozen, averaged_state, load_tensors, trained_state


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


def test_memories_of_images_are_not_averaged():
    class Remembers(nn.Module):
        memory_buffers = ("seen",)

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.register_buffer("seen", torch.zeros(1000))
            self.register_buffer("count", torch.zeros(()))

    alone, part = Remembers(), nn.Sequential(nn.Linear(1, 1), Remembers())
    kept = ["layer.weight", "layer.bias", "count"]
    assert sorted(averaged_state(alone)) == sorted(kept)
    assert sorted(averaged_state(part)) == sorted(["0.weight", "0.bias", *(f"1.{n}" for n in kept)])


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


class Saved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = network(), Frozen(network(), saved=True)


def test_trained_state_keeps_what_the_run_itself_made():
    both = Saved().train()
    assert trained_state(both).keys() == both.state_dict().keys()
    assert not both.teacher.network.training
    assert not any(p.requires_grad for p in both.teacher.parameters())


def test_a_saved_network_inside_one_that_is_not_saved_stays_out():
    outer = nn.ModuleDict({"teacher": Frozen(Saved()), "student": nn.Linear(1, 1)})
    assert trained_state(outer).keys() == {"student.weight", "student.bias"}
    inner = nn.ModuleDict({"kept": Frozen(Pair(), saved=True)})
    want = {f"kept.network.student.{name}" for name in network().state_dict()}
    assert trained_state(inner).keys() == want


def test_a_copy_is_as_saved():
    assert copy.deepcopy(Saved()).teacher.saved
    assert not copy.deepcopy(Pair()).teacher.saved


def test_a_tensor_known_by_several_names_is_there_once():
    shared = network()
    both = nn.ModuleDict({"first": shared, "second": nn.ModuleDict({"again": shared})})
    assert trained_state(both).keys() == {f"first.{name}" for name in shared.state_dict()}


def test_tied_weights_are_there_once():
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert list(trained_state(tied)) == ["0.weight", "0.bias", "1.bias"]


def test_one_name_is_enough_to_restore_all_of_them():
    first, second = (
        nn.ModuleDict({"a": part, "b": part}) for part in (network(), nn.Sequential(*network()))
    )
    with torch.no_grad():
        for value in second.state_dict().values():
            value.fill_(7)
    missing, unexpected = second.load_state_dict(trained_state(first), strict=False)
    assert not unexpected
    assert all(name.startswith("b.") for name in missing)
    assert all(torch.equal(v, first.state_dict()[k]) for k, v in second.state_dict().items())


def test_a_student_that_a_frozen_network_holds_too_is_kept():
    student = network()
    both = nn.ModuleDict({"teacher": Frozen(nn.Sequential(student)), "student": student})
    assert trained_state(both).keys() == {f"student.{name}" for name in student.state_dict()}


def test_trained_state_is_the_tensors_themselves_without_their_graph():
    both = Saved()
    state = trained_state(both)
    assert not any(value.requires_grad for value in state.values())
    assert all(v.data_ptr() == state[k].data_ptr() for k, v in both.state_dict().items())


def test_tensors_from_a_file_are_of_the_present_layout():
    first, second = (torchvision.models.mnasnet0_5(num_classes=2) for _ in range(2))
    with pytest.raises(ValueError, match="version"):  # of tensors alone it cannot tell
        second.load_state_dict(dict(first.state_dict()))
    load_tensors(second, dict(first.state_dict()))
    assert all(torch.equal(v, first.state_dict()[k]) for k, v in second.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing"):
        load_tensors(second, {})
