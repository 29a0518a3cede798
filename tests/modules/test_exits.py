"""The frame of exits: who gets a gradient, and what an early exit leaves out."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfdistill.core import ConfigError
from selfdistill.modules.exits import EarlyExit, Exits
from selfdistill.taps import Taps
from selfdistill.tasks import Classification

IMAGES = torch.linspace(-1, 1, 4 * 3 * 8 * 8).sin().view(4, 3, 8, 8)
LABELS = torch.tensor([0, 1, 2, 1])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )


@pytest.fixture
def task():
    return Classification("abc", torch.zeros(2, 3, 8, 8))


@pytest.fixture
def student(task):
    return Taps(network(), ["0", "1", "2"], example=task.example)


def calls(module: nn.Module) -> list[int]:
    counted = []
    module.register_forward_pre_hook(lambda *_: counted.append(1))
    return counted


def test_one_tap_is_not_enough(task):
    lonely = Taps(network(), ["1"], example=task.example)
    with pytest.raises(ConfigError, match=r"two taps or more, not 1.*selfdistill taps"):
        Exits(lonely, task, "slim")


@pytest.mark.parametrize("bottleneck", ["slim", "byot"])
def test_shapes(student, task, bottleneck):
    _, features = student.forward_features(IMAGES)
    maps, outputs = Exits(student, task, bottleneck)(features)
    assert [m.shape for m in maps] == [(4, 8, 4, 4)] * 2
    assert [o.shape for o in outputs] == [(4, 3)] * 2


def test_without_bottlenecks_heads_read_the_features(student, task):
    _, features = student.forward_features(IMAGES)
    exits = Exits(student, task, None)
    maps, outputs = exits(features)
    assert all(m is f for m, f in zip(maps, features.values(), strict=False))
    assert [o.shape for o in outputs] == [(4, 3)] * 2
    networks = exits.predictors(student)
    assert torch.equal(networks["exit1"](IMAGES), outputs[0])
    assert list(networks) == ["exit1", "exit2", "student"]


def test_without_predictions_there_are_no_heads(student, task):
    exits = Exits(student, task, "slim", predict=False)
    maps, outputs = exits(student.forward_features(IMAGES)[1])
    assert len(maps) == 2
    assert outputs == []
    assert len(exits.heads) == 0
    assert list(exits.predictors(student)) == ["student"]


def terms(student, task, supervised=0.7, soft=0.3):
    exits = Exits(student, task, "slim")
    out, features = student.forward_features(IMAGES)
    _, outputs = exits(features)
    weights = {"supervised_weight": supervised, "soft_weight": soft, "temperature": 3.0}
    return exits, out, outputs, exits.losses(outputs, out, LABELS, **weights)


def test_losses_are_those_of_torch(student, task):
    _, out, outputs, losses = terms(student, task)
    assert sorted(losses) == ["soft/1", "soft/2", "task/1", "task/2"]
    for i, z in enumerate(outputs, 1):
        torch.testing.assert_close(losses[f"task/{i}"], 0.7 * F.cross_entropy(z, LABELS))
        soft = F.kl_div((z / 3).log_softmax(1), (out / 3).softmax(1), reduction="batchmean")
        torch.testing.assert_close(losses[f"soft/{i}"], 0.3 * 9 * soft)


@pytest.mark.parametrize(
    ("supervised", "soft", "names"),
    [
        (0, 0, []),
        (1, 0, ["task/1", "task/2"]),
        (0, 1, ["soft/1", "soft/2"]),
    ],
)
def test_a_weight_of_zero_leaves_a_term_out(student, task, supervised, soft, names):
    assert sorted(terms(student, task, supervised, soft)[3]) == names


def reached(loss, modules: dict[str, nn.Module]) -> set[str]:
    """The modules of which some parameter gets a gradient."""
    names = set()
    for name, module in modules.items():
        grads = torch.autograd.grad(
            loss, list(module.parameters()), retain_graph=True, allow_unused=True
        )
        if any(g is not None for g in grads):
            names.add(name)
    return names


@pytest.mark.parametrize("kind", ["task", "soft"])
@pytest.mark.parametrize("i", [1, 2])
def test_an_exit_trains_what_lies_before_it(student, task, kind, i):
    exits, _, _, losses = terms(student, task)
    parts = {f"stage{n}": student.network[n] for n in range(4)}
    parts |= {f"bottleneck{n + 1}": m for n, m in enumerate(exits.bottlenecks)}
    parts |= {f"head{n + 1}": m for n, m in enumerate(exits.heads)}
    want = {f"stage{n}" for n in range(i)} | {f"bottleneck{i}", f"head{i}"}
    assert reached(losses[f"{kind}/{i}"], parts) == want


@pytest.mark.parametrize("bottleneck", ["slim", "byot"])
def test_predictors_say_what_predict_says(student, task, bottleneck):
    exits = Exits(student, task, bottleneck)
    student.forward_features(IMAGES)  # moves the batch statistics
    student.eval()
    exits.eval()
    together = exits.predict(student, IMAGES)
    alone = {name: net(IMAGES) for name, net in exits.predictors(student).items()}
    assert list(together) == list(alone) == ["exit1", "exit2", "student"]
    for name, out in together.items():
        assert torch.equal(out, alone[name]), name


def test_the_student_leaves_without_its_taps(student, task):
    assert Exits(student, task, "slim").predictors(student)["student"] is student.network


@pytest.mark.parametrize(("name", "want"), [("exit1", [1, 0, 0, 0]), ("exit2", [1, 1, 0, 0])])
def test_an_early_exit_does_not_run_the_rest(student, task, name, want):
    exits = Exits(student, task, "slim")
    counted = [calls(stage) for stage in student.network]
    exits.predictors(student)[name](IMAGES)
    assert [len(c) for c in counted] == want


def test_an_early_exit_can_be_copied(student):
    exit_ = EarlyExit(student, "1", nn.Flatten()).eval()
    twin = copy.deepcopy(exit_)
    with torch.no_grad():
        exit_.student.network[0][0].weight.zero_()
    twin_out, out = twin(IMAGES), exit_(IMAGES)
    assert twin_out.shape == out.shape
    assert not torch.equal(twin_out, out)


def test_an_early_exit_trains(student, task):
    exits = Exits(student, task, "slim")
    early = exits.predictors(student)["exit1"]
    F.cross_entropy(early(IMAGES), LABELS).backward()
    assert student.network[0][0].weight.grad.abs().sum() > 0
    assert student.network[1][0].weight.grad is None
