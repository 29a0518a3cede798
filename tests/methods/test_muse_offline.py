"""MUSE with a teacher: whose views its terms compare, its limits, switches and sentences."""

import math

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn

from selfdistill.core import METHODS, ConfigError, Frozen, options
from selfdistill.methods.muse_offline import MuseOffline
from selfdistill.taps import Taps, Teacher

CHANCE = 2 * math.log(2)
PAIRS = (1, 2, 3)


def make_teacher() -> nn.Module:
    """Two stages and nine channels at the end: nothing about it is as in the student."""
    torch.manual_seed(3)
    first = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6, momentum=None), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(6, 9, 3, 2, 1), nn.BatchNorm2d(9, momentum=None), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 5))
    teacher = nn.Sequential(first, second, head)
    teacher(torch.randn(64, 3, 16, 16))  # statistics, without which all its features are alike
    return teacher


def offline(tiny_net, tiny_task, taps="auto", **keywords) -> MuseOffline:
    student = Taps(tiny_net, taps, example=tiny_task.example)
    teacher = Teacher(Taps(make_teacher(), ["0", "1"], example=tiny_task.example))
    torch.manual_seed(0)
    return METHODS["muse-offline"](student, teacher, tiny_task, **keywords)


def numbers(x: torch.Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def caught(method, batch, progress):
    """The step, the maps behind the bottlenecks and the pooled last feature of the teacher."""
    maps = []
    for bottleneck in method.exits.bottlenecks:
        bottleneck.register_forward_hook(lambda module, args, out: maps.append(out.detach()))
    with torch.no_grad():
        _, features = method.teacher.forward_features(batch.inputs)
    return method(batch, progress), maps, features["1"].mean((2, 3))


def by_numpy(loss, local: torch.Tensor, glob: torch.Tensor) -> float:
    """The Jensen-Shannon loss of all pairs."""
    scores = loss.local_critic(local, glob)
    together, every = numbers(scores.positive), numbers(scores.negative)
    apart = np.concatenate([np.delete(x, i, -1).ravel() for i, x in enumerate(every)])
    assert len(apart) == (len(local) - 1) * together.size
    return np.logaddexp(0, -together).mean() + np.logaddexp(0, apart).mean()


@pytest.mark.parametrize("combine", ["add", "mul"])
def test_views_are_the_students_maps_and_the_teachers_last_feature(
    combine, tiny_net, tiny_task, batch, progress
):
    method = offline(tiny_net, tiny_task, combine=combine, information_weight=0.3, mi_weight=2.0)
    step, maps, deep = caught(method, batch, progress)
    assert deep.shape == (8, 9)
    for i, x in zip(PAIRS, maps, strict=True):
        mutual = by_numpy(method.critics["mutual"][i - 1], x, deep)
        own = by_numpy(method.critics["self"][i - 1], x, x.mean((2, 3)))
        assert step.monitors[f"mutual/{i}"].item() == pytest.approx(mutual, rel=1e-5)
        assert step.monitors[f"self/{i}"].item() == pytest.approx(own, rel=1e-5)
        assert step.losses[f"mutual/{i}"].item() == pytest.approx(mutual, rel=1e-5)
        assert step.losses[f"self/{i}"].item() == pytest.approx(own, rel=1e-5)
        if combine == "mul":
            assert step.monitors[f"product/{i}"].item() == pytest.approx(mutual**2 * own, rel=1e-5)


@pytest.mark.parametrize(("combine", "want"), [("add", 8.317766), ("mul", 5.765436)])
def test_critics_that_know_nothing_cost_what_chance_costs(
    combine, want, tiny_net, tiny_task, batch, progress
):
    method = offline(tiny_net, tiny_task, combine=combine, information_weight=1.0)
    with torch.no_grad():
        for parameter in method.critics.parameters():
            parameter.zero_()
    monitors = method(batch, progress).monitors
    kinds = ("mutual", "self") if combine == "add" else ("product",)
    total = sum(v.item() for name, v in monitors.items() if name.startswith(kinds))
    assert total == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_labels_and_logits_teach_the_last_layer(temperature, tiny_net, tiny_task, batch, progress):
    method = offline(
        tiny_net, tiny_task, supervised_weight=0.2, soft_weight=0.9, temperature=temperature
    ).eval()
    losses = method(batch, progress).losses
    student_logits = numbers(tiny_net(batch.inputs)) / temperature
    probabilities = special.softmax(numbers(method.teacher(batch.inputs)) / temperature, 1)
    kl = (
        (probabilities * (np.log(probabilities) - special.log_softmax(student_logits, 1)))
        .sum(1)
        .mean()
    )
    assert losses["soft"].item() == pytest.approx(0.9 * temperature**2 * kl, rel=1e-4)
    ce = nn.functional.cross_entropy(tiny_net(batch.inputs), batch.targets)
    torch.testing.assert_close(losses["task"], 0.2 * ce)


TERMS = {
    "all": ({}, {"task", "soft"}, {"mutual", "self"}),
    "product": ({"combine": "mul"}, {"task", "soft"}, {"mutual", "self"}),
    "MI": ({"si_weight": 0.0}, {"task", "soft"}, {"mutual"}),
    "SI": ({"mi_weight": 0.0}, {"task", "soft"}, {"self"}),
    "plain distillation": ({"information_weight": 0.0}, {"task", "soft"}, set()),
    "no labels": ({"supervised_weight": 0.0}, {"soft"}, {"mutual", "self"}),
    "plain training": ({"information_weight": 0.0, "soft_weight": 0.0}, {"task"}, set()),
}


@pytest.mark.parametrize("row", TERMS)
def test_terms(row, tiny_net, tiny_task, batch, progress):
    keywords, last, kinds = TERMS[row]
    method = offline(tiny_net, tiny_task, **keywords)
    step = method(batch, progress)
    assert step.losses.keys() == last | {f"{kind}/{i}" for kind in kinds for i in PAIRS}
    step.total.backward()
    reached = {n for n, p in method.named_parameters() if p.grad is not None}
    frozen = {n for n, p in method.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in method.named_parameters() if n.startswith("teacher.")}
    assert reached == {n for n, _ in method.named_parameters()} - frozen
    assert not list(method.exits.heads.parameters())


def test_teacher_stays_as_it_was(tiny_net, tiny_task, batch, progress):
    method = offline(tiny_net, tiny_task).train()
    assert isinstance(method.teacher, Frozen)
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1, weight_decay=0.1)
    method(batch, progress).total.backward()
    optimizer.step()
    after = method.teacher.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_taps_need_not_be_as_many_as_the_teachers(tiny_net, tiny_task, batch, progress):
    method = offline(tiny_net, tiny_task, ["stage1", "stage4"])
    assert len(method.teacher.shapes) == 2
    names = [name for name in method(batch, progress).losses if "/" in name]
    assert names == ["mutual/1", "self/1"]
    three = offline(tiny_net, tiny_task, ["stage1", "stage2", "stage3"])
    assert {n for n in three(batch, progress).losses if "/" in n} == {
        f"{kind}/{i}" for kind in ("mutual", "self") for i in (1, 2)
    }


def test_the_student_alone_is_left(tiny_net, tiny_task, batch):
    method = offline(tiny_net, tiny_task).eval()
    assert method.predictors() == {"student": tiny_net}
    assert torch.equal(method.predict(batch.inputs)["student"], tiny_net(batch.inputs))


@pytest.mark.slow
def test_learns_eight_images(tiny_net, tiny_task, batch, progress):
    """MI and SI fall below chance, under the loss of the labels and of a teacher without any."""
    method = offline(tiny_net, tiny_task, information_weight=1.0, soft_weight=0.1, critic_width=32)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.05, momentum=0.9)
    for _ in range(160):
        step = method(batch, progress)
        optimizer.zero_grad()
        step.total.backward()
        optimizer.step()
    for term in ("mutual", "self"):
        assert all(step.monitors[f"{term}/{i}"] < 1.0 for i in PAIRS)


def test_diagnoses(tiny_net, tiny_task):
    method = offline(tiny_net, tiny_task)
    warnings = method.diagnose({"mutual/2": CHANCE, "self/1": 5e-4, "self/2": 0.7})
    assert list(warnings) == ["mutual/2", "self/1"]
    assert warnings["mutual/2"].startswith("still at chance")
    assert warnings["self/1"].startswith("saturated")


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"supervised_weight": 0.0, "soft_weight": 0.0}, "last layer needs a loss"),
        ({"combine": "mul", "estimator": "dv"}, "above zero, and 'dv'.*combine='add'"),
        ({"critic": "concat", "negatives": "all"}, "concat critic.*negatives='roll'"),
        ({"taps": ["stage4"]}, "two taps"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(keywords, sentence, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=sentence):
        offline(tiny_net, tiny_task, **keywords)


def test_defaults():
    defaults = {o.name: o.default for o in options(METHODS["muse-offline"]).values()}
    assert defaults == {
        "combine": "add",
        "information_weight": 0.1,
        "mi_weight": 1.0,
        "si_weight": 1.0,
        "supervised_weight": 1.0,
        "soft_weight": 1.0,
        "temperature": 4.0,
        "critic": "separable",
        "critic_width": None,
        "negatives": None,
        "estimator": "jsd",
        "global_critic_weight": 0.0,
        "bottleneck": "slim",
    }
    assert all(o.meaning for o in options(METHODS["muse-offline"]).values())
