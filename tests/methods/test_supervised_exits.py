"""Exits that learn from labels and the last exit, and the discrepancies of MUSE's Table 6."""

import numpy as np
import pytest
import torch
from torch import nn

from selfdistill.core import METHODS, ConfigError, options
from selfdistill.methods.exits import DISCREPANCIES, discriminator_loss, feature_loss
from selfdistill.taps import Taps

PAIRS = (1, 2, 3)
TRUNK = [f"stage{i}" for i in (1, 2, 3, 4)]


def exits(tiny_net, tiny_task, **keywords):
    torch.manual_seed(0)
    student = Taps(tiny_net, example=tiny_task.example)
    return METHODS["exits"](student, tiny_task, **keywords)


@pytest.mark.parametrize("supervised", [0.7, 0.2])
def test_cross_entropies_and_their_weights(supervised, tiny_net, tiny_task, batch, progress):
    method = exits(tiny_net, tiny_task, supervised_weight=supervised).eval()
    losses = method(batch, progress).losses
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
        ({"soft_weight": 0.0}, {"task"}),
        ({"supervised_weight": 0.0}, {"soft"}),
    ],
)
def test_terms(keywords, kinds, tiny_net, tiny_task, batch, progress):
    method = exits(tiny_net, tiny_task, **keywords)
    step = method(batch, progress)
    assert step.losses.keys() == {"task", *(f"{kind}/{i}" for kind in kinds for i in PAIRS)}
    step.total.backward()
    assert all(p.grad is not None for p in method.parameters())


def test_is_muse_without_information(tiny_net, tiny_task, batch, progress):
    method = exits(tiny_net, tiny_task).eval()
    muse = METHODS["muse"](method.student, tiny_task, information_weight=0.0).eval()
    muse.exits.load_state_dict(method.exits.state_dict())
    losses, muse_losses = method(batch, progress).losses, muse(batch, progress).losses
    assert losses.keys() == muse_losses.keys()
    assert all(torch.equal(losses[name], muse_losses[name]) for name in losses)


def test_one_pass_says_what_each_exit_says(tiny_net, tiny_task, batch):
    method = exits(tiny_net, tiny_task).eval()
    together = method.predict(batch.inputs)
    for name, network in method.predictors().items():
        assert torch.equal(network(batch.inputs), together[name])


def test_defaults():
    defaults = {o.name: o.default for o in options(METHODS["exits"]).values()}
    assert defaults == {
        "supervised_weight": 0.7,
        "soft_weight": 0.3,
        "temperature": 3.0,
        "bottleneck": "slim",
        "discrepancy": "none",
        "discrepancy_weight": None,
        "detach_last": None,
    }


def caught(method, batch, progress):
    """The step, the maps behind the bottlenecks and the last feature, (B, 16, 2, 2) all of them."""
    maps, last = [], []
    hooks = [
        bottleneck.register_forward_hook(lambda module, args, out: maps.append(out))
        for bottleneck in method.exits.bottlenecks
    ]
    stage = method.student.network.stage4
    hooks.append(stage.register_forward_hook(lambda module, args, out: last.append(out)))
    step = method(batch, progress)
    for hook in hooks:
        hook.remove()
    assert {x.shape for x in maps} == {(8, 16, 4, 4)}
    assert last[0].shape == (8, 16, 2, 2)
    pooled = [x.detach().double().numpy().reshape(8, 16, 2, 2, 2, 2).mean((3, 5)) for x in maps]
    return step, pooled, last[0].detach().double().numpy()


def test_l2_is_the_mean_of_squares(tiny_net, tiny_task, batch, progress):
    method = exits(tiny_net, tiny_task, discrepancy="l2")
    step, maps, last = caught(method, batch, progress)
    for i, x in zip(PAIRS, maps, strict=True):
        want = 0.05 * np.mean((x - last) ** 2)
        assert step.losses[f"l2/{i}"].item() == pytest.approx(want, rel=1e-5)


def test_mmd_is_the_distance_of_mean_outer_products(tiny_net, tiny_task, batch, progress):
    """The explicit feature map of the kernel (x·y)² is the outer product of x with itself."""
    method = exits(tiny_net, tiny_task, discrepancy="mmd")
    step, maps, last = caught(method, batch, progress)

    def embedded(x: np.ndarray) -> np.ndarray:
        rows = x.reshape(8, 16, 4)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=2, keepdims=True), 1e-12)
        return np.einsum("bcn,bcm->bnm", rows, rows) / 16

    for i, x in zip(PAIRS, maps, strict=True):
        want = 50 * ((embedded(x) - embedded(last)) ** 2).sum((1, 2)).mean()
        assert step.losses[f"mmd/{i}"].item() == pytest.approx(want, rel=1e-4)


def test_vid_of_a_mean_that_says_nothing(tiny_net, tiny_task, batch, progress):
    """Then the error is the feature itself, under the first variance of 5."""
    method = exits(tiny_net, tiny_task, discrepancy="vid", discrepancy_weight=2.0)
    with torch.no_grad():
        for parameter in method.learned.parameters():
            if parameter.dim() > 1:
                parameter.zero_()
    step, _, last = caught(method, batch, progress)
    want = 0.5 * np.log(5) + 0.5 * np.mean(last**2) / 5
    for i in PAIRS:
        assert step.losses[f"vid/{i}"].item() == pytest.approx(want, rel=1e-5)


class Echo(nn.Module):
    """A discriminator whose score is its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3))


def test_least_squares_of_a_discriminator_by_hand():
    real, fake = torch.full((4, 1, 1, 1), 0.8), torch.full((4, 1, 1, 1), 0.3)
    assert discriminator_loss(Echo(), fake, real).item() == pytest.approx(0.13)
    assert feature_loss(Echo(), fake, real, both=False).item() == pytest.approx(0.49)
    assert feature_loss(Echo(), fake, real, both=True).item() == pytest.approx(0.49 + 0.64)


@pytest.mark.parametrize("real", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("fake", [0.1, 0.5, 0.9])
def test_features_work_against_the_discriminator(real, fake):
    """Of scores between 0 and 1, what helps the features is what hurts the discriminator."""
    x, last = (torch.full((1, 1, 1, 1), v, requires_grad=True) for v in (fake, real))
    discriminator_loss = (1 - last).square().sum() + x.square().sum()
    of_discriminator = torch.autograd.grad(discriminator_loss, [x, last])
    of_features = torch.autograd.grad(feature_loss(Echo(), x, last, both=True), [x, last])
    assert all(a.sign() == -b.sign() for a, b in zip(of_discriminator, of_features, strict=True))


def parts(method) -> dict[str, list[nn.Parameter]]:
    named = {name: method.student.network.get_submodule(name) for name in [*TRUNK, "fc"]}
    for i in PAIRS:
        named[f"bottleneck{i}"] = method.exits.bottlenecks[i - 1]
        named[f"head{i}"] = method.exits.heads[i - 1]
        if len(method.learned):
            named[f"learned{i}"] = method.learned[i - 1]
    return {name: list(part.parameters()) for name, part in named.items()}


def reached(loss, method) -> set[str]:
    """Which parts a term's gradient reaches."""
    names = set()
    for name, parameters in parts(method).items():
        grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        if any(g is not None and g.abs().sum() > 0 for g in grads):
            names.add(name)
    return names


@pytest.mark.parametrize("detach_last", [None, False, True])
@pytest.mark.parametrize("discrepancy", DISCREPANCIES)
def test_where_a_discrepancy_teaches(
    discrepancy, detach_last, tiny_net, tiny_task, batch, progress
):
    method = exits(tiny_net, tiny_task, discrepancy=discrepancy, detach_last=detach_last)
    losses = method(batch, progress).losses
    stops = discrepancy == "vid" if detach_last is None else detach_last
    for i in PAIRS:
        want = {f"bottleneck{i}"} | set(TRUNK[:i] if stops else TRUNK)
        want |= {f"learned{i}"} if discrepancy == "vid" else set()
        assert reached(losses[f"{discrepancy}/{i}"], method) == want
        if discrepancy == "adversarial":
            assert reached(losses[f"discriminator/{i}"], method) == {f"learned{i}"}


def without_rounding(method):
    """In fp64 and with frozen batch statistics, so that a small step shows."""
    return method.double().eval()


@pytest.mark.parametrize("term", ["discriminator", "adversarial"])
def test_each_side_gains_by_its_own_term(term, tiny_net, tiny_task, batch, progress):
    method = without_rounding(exits(tiny_net, tiny_task, discrepancy="adversarial"))
    batch = batch._replace(inputs=batch.inputs.double())
    before = method(batch, progress).losses
    weights = {name: [p.detach().clone() for p in ps] for name, ps in parts(method).items()}
    before[f"{term}/2"].backward()
    torch.optim.SGD(method.parameters(), lr=1e-3).step()
    assert method(batch, progress).losses[f"{term}/2"] < before[f"{term}/2"]
    moved = {
        name
        for name, was in weights.items()
        if not all(torch.equal(a, b) for a, b in zip(was, parts(method)[name], strict=True))
    }
    assert moved == ({"learned2"} if term == "discriminator" else {"bottleneck2", *TRUNK})


def test_features_that_fool_cost_the_discriminator(tiny_net, tiny_task, batch, progress):
    """Once the discriminator has learned, a step of the features makes its loss rise."""
    method = without_rounding(exits(tiny_net, tiny_task, discrepancy="adversarial"))
    batch = batch._replace(inputs=batch.inputs.double())
    optimizer = torch.optim.Adam(method.learned.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        sum(v for n, v in method(batch, progress).losses.items() if "discr" in n).backward()
        optimizer.step()
    before = method(batch, progress).losses
    assert before["discriminator/1"] < 0.4
    method.zero_grad()
    before["adversarial/1"].backward()
    torch.optim.SGD(method.parameters(), lr=1e-3).step()
    after = method(batch, progress).losses
    assert after["discriminator/1"] > before["discriminator/1"]
    assert after["adversarial/1"] < before["adversarial/1"]


@pytest.mark.parametrize("discrepancy", sorted(DISCREPANCIES.keys() - {"none", "vid"}))
def test_weights(discrepancy, tiny_net, tiny_task, batch, progress):
    usual = exits(tiny_net, tiny_task, discrepancy=discrepancy).eval()
    heavy = exits(tiny_net, tiny_task, discrepancy=discrepancy, discrepancy_weight=3.0).eval()
    first, second = usual(batch, progress).losses, heavy(batch, progress).losses
    ratio = 3.0 / DISCREPANCIES[discrepancy].weight
    for name, loss in first.items():
        scaled = ratio * loss if name.startswith(discrepancy) else loss
        torch.testing.assert_close(second[name], scaled)


@pytest.mark.parametrize("discrepancy", DISCREPANCIES)
def test_weight_zero_is_none(discrepancy, tiny_net, tiny_task, batch, progress):
    plain = exits(tiny_net, tiny_task)
    off = exits(tiny_net, tiny_task, discrepancy=discrepancy, discrepancy_weight=0.0)
    assert off.state_dict().keys() == plain.state_dict().keys()
    first, second = plain(batch, progress).losses, off(batch, progress).losses
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("discrepancy", DISCREPANCIES)
def test_a_discrepancy_alone_needs_no_heads(discrepancy, tiny_net, tiny_task, batch, progress):
    """The row "L2" of Table 5."""
    method = exits(
        tiny_net, tiny_task, discrepancy=discrepancy, supervised_weight=0.0, soft_weight=0.0
    )
    step = method(batch, progress)
    kinds = {discrepancy} | ({"discriminator"} if discrepancy == "adversarial" else set())
    assert step.losses.keys() == {"task", *(f"{kind}/{i}" for kind in kinds for i in PAIRS)}
    assert list(method.predictors()) == ["student"]
    step.total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"supervised_weight": 0.0, "soft_weight": 0.0}, "exits need a loss.*choose a discrepancy"),
        ({"discrepancy_weight": 1.0}, "there is none; give discrepancy one of l2, mmd"),
        ({"detach_last": False}, "there is none; give discrepancy one of l2, mmd"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(keywords, sentence, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=sentence):
        exits(tiny_net, tiny_task, **keywords)


def test_mmd_of_a_single_cell_is_refused(tiny_task):
    first, second = nn.Conv2d(3, 4, 2, 2), nn.Sequential(nn.Conv2d(4, 6, 8), nn.ReLU())
    network = nn.Sequential(first, second, nn.Flatten(), nn.Linear(6, 5))
    student = Taps(network, ["0", "1"], example=tiny_task.example)
    with pytest.raises(ConfigError, match="last feature is a single cell"):
        METHODS["exits"](student, tiny_task, discrepancy="mmd")
    METHODS["exits"](student, tiny_task, discrepancy="l2")
