"""One step taken apart, against gradients that autograd gives to a twin."""

import copy

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.utils import get_total_norm

from selfdistill.core import Batch, Method, StepOutput
from selfdistill.doctor.network import look_at_network
from selfdistill.doctor.probe import probe_step
from selfdistill.models import build
from selfdistill.recipe.build import Parts, assemble, train_loader
from selfdistill.recipe.schema import parse

TINY = {"limit": 64, "batch_size": 16, "model": "cifar/resnet8", "val": 0.05}


def fabric():
    return Fabric(accelerator="cpu", devices=1)


def first_of(parts: Parts) -> Batch:
    return next(train_loader(parts.recipe, parts.data, parts.method, fabric()).epoch(0))[0]


def probed(**keys):
    parts = assemble(parse({**TINY, **keys}))
    twin = copy.deepcopy(parts.method)
    return probe_step(parts, fabric(), first_of(parts)), twin, parts


def test_terms_are_those_of_the_step(progress):
    found, twin, parts = probed(method="muse")
    step = twin.train()(first_of(parts), progress)
    assert [t.name for t in found.terms] == list(step.losses)
    for term, (name, loss) in zip(found.terms, step.losses.items(), strict=True):
        assert term.value == pytest.approx(loss.item())
        twin.zero_grad()
        loss.backward(retain_graph=True)
        student = twin.predictors()["student"]
        own = {id(p) for p in student.parameters()}
        sides = [[], []]
        for p in twin.parameters():
            if p.grad is not None:
                sides[id(p) in own].append(p.grad)
        for mine, got in zip(sides, (term.beyond, term.gradient), strict=True):
            assert got == pytest.approx(float(get_total_norm(mine)), rel=1e-4), name
    assert found.loss == pytest.approx(step.total.item())
    assert sum(t.value for t in found.terms) == pytest.approx(found.loss)


def test_the_last_taps_gradient_is_that_of_the_feature(progress):
    found, twin, parts = probed(method="muse")
    batch = first_of(parts)
    out, features = twin.train().student.forward_features(batch.inputs)
    loss = nn.functional.cross_entropy(out, batch.targets)
    (grad,) = torch.autograd.grad(loss, list(features.values())[-1])
    task, *exits = found.terms[:2]
    assert task.at_tap == pytest.approx(grad.norm().item(), rel=1e-4)
    assert exits[0].at_tap == 0  # an exit's loss stops before the last stage
    assert probed(method="ce")[0].terms[0].at_tap is None


def test_no_weight_moves():
    _, twin, parts = probed(method="muse")
    before, after = dict(twin.named_parameters()), dict(parts.method.named_parameters())
    assert all(torch.equal(after[name], p) for name, p in before.items())


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
    parts = assemble(parse({**TINY, "method": "ce"}))
    return parts._replace(method=Peculiar(parts.network))


def test_what_is_wrong_is_told():
    parts = peculiar()
    found = probe_step(parts, fabric(), first_of(parts))
    assert found.untouched == ["unused.weight", "unused.bias"]
    assert found.notes == {"mood": "is low"}
    untouched, loud = found.warnings
    assert "2 trained parameter tensors get no gradient (unused.weight, unused.bias)" in untouched
    assert "term loud pulls 100 times as hard at the student as task" in loud
    later = found.terms[-1]
    assert (later.value, later.gradient) == (0, 0)


def test_the_parts_of_a_method():
    parts = assemble(parse({**TINY, "method": "muse+cskd"}))
    found = look_at_network(parts)
    sizes = {part.name: part.parameters for part in found.added}
    muse = parts.method.parts["muse"]
    want = {f"muse/{n}": getattr(muse, n) for n in ("exits", "critics")}
    assert sizes == {n: sum(p.numel() for p in m.parameters()) for n, m in want.items()}
    assert found.taps == parts.method.student.shapes
    trained = sum(p.numel() for p in parts.method.parameters() if p.requires_grad)
    assert found.parameters + sum(sizes.values()) == trained
    assert [row.predictor for row in found.predictors] == ["exit1", "exit2", "exit3", "student"]


def test_peers_copies_and_memories_are_told_apart():
    online = look_at_network(assemble(parse({**TINY, "method": "afd"})))
    assert online.peers == {"1 cifar/resnet8": online.parameters}
    assert [part.kind for part in online.added] == ["2 × MapDiscriminator"]
    (copied,) = look_at_network(assemble(parse({**TINY, "method": "snapshot"}))).added
    assert (copied.parameters, copied.frozen) == (0, online.parameters)
    frozen = build("cifar/resnet8", num_classes=10, in_channels=1)
    frozen.stem.requires_grad_(False)
    parts = assemble(parse({**TINY, "method": "ce"}), model=frozen)
    assert look_at_network(parts).frozen == sum(p.numel() for p in frozen.stem.parameters())


def test_an_exit_that_saves_nothing_is_told():
    parts = assemble(parse({**TINY, "method": "muse", "model": "timm/mobilenetv4_conv_small"}))
    (sentence,) = look_at_network(parts).warnings
    assert sentence.startswith("exit1")
    assert "more multiply-adds than the whole network" in sentence
