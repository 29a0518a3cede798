"""Adversarial maps: which term trains what, in which direction, and the losses' golden values."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from selfdistill.core import METHODS, ConfigError, options
from selfdistill.methods.afd import MapDiscriminator, discriminator_loss, fooling_loss
from selfdistill.taps import Taps

STAGES = ["stage1", "stage2"]


def network(width, seed, stride=2):
    """Two stages of convolutions, 3×16×16 to five classes."""
    torch.manual_seed(seed)
    sizes = {"stage1": (3, 8, 2), "stage2": (8, width, stride)}
    parts = {
        name: nn.Sequential(nn.Conv2d(c, w, 3, s, 1), nn.BatchNorm2d(w), nn.ReLU())
        for name, (c, w, s) in sizes.items()
    }
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(OrderedDict(**parts, pool=pool, fc=nn.Linear(width, 5)))


def afd(task, widths=(12, 16), strides=(2, 2, 2), **keywords):
    """The method around networks of these widths, the first one the student."""
    networks = [
        Taps(network(w, seed, stride), STAGES, example=task.example)
        for seed, (w, stride) in enumerate(zip(widths, strides, strict=False))
    ]
    torch.manual_seed(9)
    return METHODS["afd"](
        networks[0], networks[1:], task, **({"discriminator_width": 16} | keywords)
    )


def test_golden_values():
    real, fake = torch.tensor([0.8, 0.8]), torch.tensor([0.3, 0.3])
    assert discriminator_loss(real, fake).item() == pytest.approx(0.13)
    assert fooling_loss(fake).item() == pytest.approx(0.49)


class Reads(nn.Module):
    """A discriminator's place: remembers its maps and gives a score to each in turn."""

    def __init__(self, scores):
        super().__init__()
        self.scores, self.seen = scores, []

    def forward(self, x):
        self.seen.append(x)
        return torch.full((len(x),), self.scores[len(self.seen) - 1])


def test_terms_and_monitors_are_made_of_the_scores(tiny_task, batch, progress):
    method = afd(tiny_task, adversarial_weight=0.5)
    method.discriminators[0] = Reads([0.8, 0.3, 0.3])
    step = method(batch, progress)
    assert step.losses["discriminator"].item() == pytest.approx(0.13)
    assert step.losses["adversarial"].item() == pytest.approx(0.5 * 0.49)
    assert step.monitors["real"].item() == pytest.approx(0.8)
    assert step.monitors["fake"].item() == pytest.approx(0.3)


def test_each_learns_from_the_one_before_it_in_a_circle(tiny_task, batch, progress):
    method = afd(tiny_task, widths=(12, 12, 12))
    maps = {}
    for k, taps in enumerate((method.student, *method.peers)):
        method.discriminators[k] = Reads([0.5, 0.5, 0.5])
        taps.network.stage2.register_forward_hook(lambda m, a, out, k=k: maps.update({k: out}))
    method(batch, progress)
    for k, before in ((0, 2), (1, 0), (2, 1)):
        real, fake, scored = method.discriminators[k].seen
        assert torch.equal(real, maps[before])
        assert torch.equal(fake, maps[k])
        assert torch.equal(scored, maps[k])
        assert [x.requires_grad for x in (real, fake, scored)] == [False, False, True]


def parts_of(method):
    """{part: parameters} of a method with one peer."""
    parts = {}
    for k, prefix in enumerate(["", "peer1/"]):
        net = (method.student, *method.peers)[k].network
        parts[f"{prefix}stages"] = [*net.stage1.parameters(), *net.stage2.parameters()]
        parts[f"{prefix}fc"] = list(net.fc.parameters())
        parts[f"{prefix}transfer"] = list(method.transfers[k].parameters())
        parts[f"{prefix}discriminator"] = list(method.discriminators[k].parameters())
    return parts


def test_which_term_trains_what(tiny_task, batch, progress):
    method = afd(tiny_task)
    parts = parts_of(method)
    assert sum(map(len, parts.values())) == len(list(method.parameters()))
    trains = {
        "task": {"stages", "fc"},
        "soft": {"stages", "fc"},
        "adversarial": {"stages", "transfer"},
        "discriminator": {"discriminator"},
    }
    for name, loss in method(batch, progress).losses.items():
        network_name, _, term = name.rpartition("/")
        start = f"{network_name}/" if network_name else ""
        want = {start + part for part in trains[term]}
        for part, parameters in parts.items():
            grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            assert {g is not None for g in grads} == {part in want}, (name, part)


def moved(method, loss, parameters, rate):
    """A step of plain gradient descent on one term, for these parameters."""
    grads = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter -= rate * grad


@pytest.mark.parametrize("prefix", ["", "peer1/"])
def test_the_networks_step_makes_fakes_look_real(prefix, tiny_task, batch, progress):
    method = afd(tiny_task)
    parts, before = parts_of(method), method(batch, progress)
    trained = parts[f"{prefix}stages"] + parts[f"{prefix}transfer"]
    moved(method, before.losses[f"{prefix}adversarial"], trained, 0.1)
    after = method(batch, progress)
    assert after.monitors[f"{prefix}fake"] > before.monitors[f"{prefix}fake"]
    assert after.losses[f"{prefix}adversarial"] < before.losses[f"{prefix}adversarial"]
    assert after.losses[f"{prefix}discriminator"] > before.losses[f"{prefix}discriminator"]
    assert torch.equal(after.monitors[f"{prefix}real"], before.monitors[f"{prefix}real"])


@pytest.mark.parametrize("prefix", ["", "peer1/"])
def test_the_discriminators_step_tells_them_apart(prefix, tiny_task, batch, progress):
    method = afd(tiny_task)
    parts, before = parts_of(method), method(batch, progress)
    moved(method, before.losses[f"{prefix}discriminator"], parts[f"{prefix}discriminator"], 0.1)
    after = method(batch, progress)
    assert after.losses[f"{prefix}discriminator"] < before.losses[f"{prefix}discriminator"]
    unmoved = set(before.losses) - {f"{prefix}discriminator", f"{prefix}adversarial"}
    assert all(torch.equal(after.losses[name], before.losses[name]) for name in unmoved)


def test_a_discriminator_alone_learns_to_tell(tiny_task, batch, progress):
    method = afd(tiny_task)
    optimizer = torch.optim.Adam(method.discriminators.parameters(), lr=1e-2)
    for _ in range(50):
        step = method(batch, progress)
        optimizer.zero_grad()
        step.losses["discriminator"].backward(inputs=list(method.discriminators.parameters()))
        optimizer.step()
    assert step.losses["discriminator"] < 0.1  # at chance it is a half
    assert step.monitors["real"] > 0.8 > 0.2 > step.monitors["fake"]


def test_a_discriminator_that_sees_nothing_teaches_nothing(tiny_task, batch, progress):
    method = afd(tiny_task)
    nn.init.zeros_(method.discriminators[0].score.weight)
    loss = method(batch, progress).losses["adversarial"]
    grads = torch.autograd.grad(loss, parts_of(method)["stages"])
    assert all((g == 0).all() for g in grads)


def test_transfer_only_where_channels_differ(tiny_task):
    same, different = afd(tiny_task, widths=(12, 12)), afd(tiny_task, widths=(12, 16))
    assert all(isinstance(t, nn.Identity) for t in same.transfers)
    shapes = [tuple(t[0].weight.shape[:2]) for t in different.transfers]
    assert shapes == [(16, 12), (12, 16)]


@pytest.mark.parametrize("strides", [(1, 2), (2, 1)])
def test_the_larger_map_is_pooled(strides, tiny_task, batch, progress):
    method = afd(tiny_task, widths=(12, 12), strides=strides)
    for k in (0, 1):
        method.discriminators[k] = Reads([0.5, 0.5, 0.5])
    method(batch, progress)
    shapes = [x.shape for discriminator in method.discriminators for x in discriminator.seen]
    assert set(shapes) == {torch.Size([8, 12, 4, 4])}


def test_scores_lie_between_0_and_1_in_fp32():
    torch.manual_seed(0)
    discriminator = MapDiscriminator(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        scores = discriminator(100 * torch.randn(4, 6, 3, 3))
    assert scores.shape == (4,)
    assert scores.dtype == torch.float32
    assert ((scores > 0) & (scores < 1)).all()


def test_discriminators_have_a_rate_of_their_own(tiny_task):
    method = afd(tiny_task, discriminator_lr_scale=0.25)
    networks, discriminators = method.param_groups()
    assert "lr_scale" not in networks
    assert discriminators["lr_scale"] == 0.25
    assert {id(p) for p in discriminators["params"]} == {
        id(p) for p in method.discriminators.parameters()
    }
    given = [id(p) for p in networks["params"] + discriminators["params"]]
    assert sorted(given) == sorted(id(p) for p in method.parameters())


def test_without_adversaries_it_is_mutual_learning(tiny_task, batch, progress):
    method = afd(tiny_task, widths=(12, 16, 8), adversarial_weight=0.0, soft_weight=0.5)
    peers = [taps.network for taps in method.peers]
    plain = METHODS["dml"](
        method.student.network, peers, tiny_task, soft_weight=0.5, temperature=3.0
    )
    losses = method(batch, progress).losses
    torch.testing.assert_close(losses, plain(batch, progress).losses, rtol=0, atol=0)
    assert len(method.param_groups()) == 1
    assert not list(method.discriminators.parameters())
    assert not list(method.transfers.parameters())


def test_without_anything_there_are_labels_only(tiny_task, batch, progress):
    losses = afd(tiny_task, soft_weight=0.0, adversarial_weight=0.0)(batch, progress).losses
    assert losses.keys() == {"task", "peer1/task"}


def test_alone_is_an_error(tiny_task):
    with pytest.raises(ConfigError, match="--peer"):
        afd(tiny_task, widths=(12,))


def test_all_networks_predict_the_student_last(tiny_task):
    method = afd(tiny_task, widths=(12, 16, 8))
    predictors = method.predictors()
    assert list(predictors) == ["peer1", "peer2", "student"]
    assert predictors["peer2"] is method.peers[1].network


def test_defaults():
    defaults = {o.name: o.default for o in options(METHODS["afd"]).values()}
    assert defaults == {
        "soft_weight": 1.0,
        "temperature": 3.0,
        "adversarial_weight": 1.0,
        "discriminator_lr_scale": 0.1,
        "discriminator_width": 128,
    }
