"""One step taken apart, against gradients that autograd gives to a twin."""

import copy

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.utils import get_total_norm

from selfdistill.core import Batch, Method, StepOutput
from selfdistill.diagnosis.first_step import profile_first_step
from selfdistill.diagnosis.network import check_network
from selfdistill.engine.fine_tuning import FineTuning
from selfdistill.models import build
from selfdistill.recipe.build_run import RunComponents, build_run
from selfdistill.recipe.loaders import train_loader
from selfdistill.recipe.schema import parse

TINY = {"max_train_images": 64, "batch_size": 16, "model": "cifar/resnet8", "val_fraction": 0.05}


def fabric():
    return Fabric(accelerator="cpu", devices=1)


def first_of(parts: RunComponents) -> Batch:
    return next(train_loader(parts.recipe, parts.data, parts.method, fabric()).epoch(0))[0]


def profile(**keys):
    parts = build_run(parse({**TINY, **keys}))
    twin = copy.deepcopy(parts.method)
    return profile_first_step(parts, fabric(), first_of(parts)), twin, parts


def test_terms_are_those_of_the_step(progress):
    report, twin, parts = profile(method="muse")
    step = twin.train()(first_of(parts), progress)
    assert [t.name for t in report.terms] == list(step.losses)
    for term, (name, loss) in zip(report.terms, step.losses.items(), strict=True):
        assert term.value == pytest.approx(loss.item())
        twin.zero_grad()
        loss.backward(retain_graph=True)
        student = twin.predictors()["student"]
        student_ids = {id(p) for p in student.parameters()}
        sides = [[], []]
        for p in twin.parameters():
            if p.grad is not None:
                sides[id(p) in student_ids].append(p.grad)
        for grads, norm in zip(sides, (term.gradient_elsewhere, term.gradient), strict=True):
            assert norm == pytest.approx(float(get_total_norm(grads)), rel=1e-4), name
    assert report.loss == pytest.approx(step.total.item())
    assert sum(t.value for t in report.terms) == pytest.approx(report.loss)


def test_the_last_taps_gradient_is_that_of_the_feature(progress):
    report, twin, parts = profile(method="muse")
    batch = first_of(parts)
    out, features = twin.train().student.forward_features(batch.inputs)
    loss = nn.functional.cross_entropy(out, batch.targets)
    (grad,) = torch.autograd.grad(loss, list(features.values())[-1])
    task, *exits = report.terms[:2]
    assert task.gradient_at_tap == pytest.approx(grad.norm().item(), rel=1e-4)
    assert exits[0].gradient_at_tap == 0  # an exit's loss stops before the last stage
    assert profile(method="ce")[0].terms[0].gradient_at_tap is None


def test_no_weight_moves():
    _, twin, parts = profile(method="muse")
    before, after = dict(twin.named_parameters()), dict(parts.method.named_parameters())
    assert all(torch.equal(after[name], p) for name, p in before.items())


def test_frozen_statistics_stay_as_in_training():
    parts = build_run(parse({**TINY, "method": "ce"}))
    norm = next(m for m in parts.network.modules() if isinstance(m, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    held = parts._replace(tuning=FineTuning({}, [norm]))
    profile_first_step(held, fabric(), first_of(held))
    assert torch.equal(norm.running_mean, before)
    profile_first_step(parts, fabric(), first_of(parts))
    assert not torch.equal(norm.running_mean, before)


class Peculiar(Method):
    """Has a layer that no term reaches, one loud term, and one that comes later."""

    kind = "self"

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student, self.unused = student, nn.Linear(3, 4)

    def forward(self, batch, progress):
        out = self.student(batch.inputs)
        task = nn.functional.cross_entropy(out, batch.targets)
        losses = {"task": task, "loud": 100 * task, "later": torch.zeros(())}
        return StepOutput(out, losses, {"mood": torch.tensor(0.5)})

    def diagnose(self, monitors):
        return {"mood": "is low"} if monitors["mood"] < 1 else {}


def peculiar():
    parts = build_run(parse({**TINY, "method": "ce"}))
    return parts._replace(method=Peculiar(parts.network))


def test_warnings():
    parts = peculiar()
    report = profile_first_step(parts, fabric(), first_of(parts))
    assert report.without_gradient == ["unused.weight", "unused.bias"]
    assert report.notes == {"mood": "is low"}
    unreached, loud = report.warnings
    assert "2 trained parameter tensors get no gradient (unused.weight, unused.bias)" in unreached
    assert "the gradient of term loud at the student is 100 times that of task" in loud
    later = report.terms[-1]
    assert (later.value, later.gradient) == (0, 0)


def test_modules_that_a_method_adds():
    parts = build_run(parse({**TINY, "method": "muse+cskd"}))
    report = check_network(parts)
    sizes = {part.name: part.parameters for part in report.added}
    muse = parts.method.parts["muse"]
    want = {f"muse/{n}": getattr(muse, n) for n in ("exits", "critics")}
    assert sizes == {n: sum(p.numel() for p in m.parameters()) for n, m in want.items()}
    assert report.taps == parts.method.student.shapes
    trained = sum(p.numel() for p in parts.method.parameters() if p.requires_grad)
    assert report.parameters + sum(sizes.values()) == trained
    assert [row.predictor for row in report.predictors] == ["exit1", "exit2", "exit3", "student"]


def test_peers_copies_and_memories_are_distinguished():
    online = check_network(build_run(parse({**TINY, "method": "afd"})))
    assert online.peers == {"1 cifar/resnet8": online.parameters}
    assert [part.kind for part in online.added] == ["2 × MapDiscriminator"]
    (copied,) = check_network(build_run(parse({**TINY, "method": "snapshot"}))).added
    assert (copied.parameters, copied.frozen) == (0, online.parameters)
    frozen = build("cifar/resnet8", num_classes=10, in_channels=1)
    frozen.stem.requires_grad_(False)
    parts = build_run(parse({**TINY, "method": "ce"}), model=frozen)
    assert check_network(parts).frozen == sum(p.numel() for p in frozen.stem.parameters())


def test_an_exit_that_saves_nothing_is_warned_of():
    parts = build_run(parse({**TINY, "method": "muse", "model": "timm/mobilenetv4_conv_small"}))
    (sentence,) = check_network(parts).warnings
    assert sentence.startswith("exit1")
    assert "more multiply-adds than the whole network" in sentence
