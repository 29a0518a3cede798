"""Critics on features whose information is known."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from views import QUICK, Views, data_of, losses, noise, of, steady

from selfdistill.core import ConfigError, DataError, DivergenceError
from selfdistill.data import InMemoryImages
from selfdistill.information import (
    HELD_OUT,
    TRAINING,
    EstimatorConfig,
    NetworkUnderTest,
    estimate_information,
)

CHANCE = 2 * math.log(2)


def halves(x):
    return x[:, :4]


def others(x):
    return x[:, 4:]


def test_independent_features_stay_at_chance():
    final = losses(Views(halves, others), data_of(noise(2304, 8)))
    assert final["mutual/1"] == pytest.approx(CHANCE, abs=0.03)


def test_a_feature_knows_itself():
    final = losses(Views(halves, halves), data_of(steady(1280, 8)))
    assert all(loss < CHANCE / 2 for loss in final.values())
    assert final["mutual/1"] == pytest.approx(final["self/1"], abs=0.05)


@pytest.mark.parametrize(
    ("rho", "lowest"), [(0.9, 0.9572), pytest.param(0.5, 1.3125, marks=pytest.mark.slow)]
)
def test_gaussians_reach_the_loss_of_theory(rho, lowest, monkeypatch):
    """2 ln 2 − 2 JSD of a bivariate Gaussian, by quadrature; the critic is linear in x and x²."""
    monkeypatch.setattr("selfdistill.information.estimation._MAX_HELD_OUT", 4096)
    x, y = noise(12288, 2, side=1).split(1, 1)
    network = Views(lambda x: torch.cat([x[:, :1], x[:, :1] ** 2], 1), lambda x: x[:, 1:])
    pairs = torch.cat([x, rho * x + math.sqrt(1 - rho**2) * y], 1)
    config = EstimatorConfig(steps=150, width=16, lr=0.02)
    assert losses(network, data_of(pairs, 4096), config)["mutual/1"] == pytest.approx(
        lowest, abs=0.03
    )


def test_the_nearer_module_has_more():
    """Module i shows the last feature behind noise that falls with i."""
    network = Views(
        lambda x: x[:, :4] + 3 * x[:, 4:], lambda x: x[:, :4] + x[:, 4:], lambda x: x[:, :4]
    )
    final = losses(network, data_of(steady(1280, 8)))
    assert final["mutual/2"] < final["mutual/1"] - 0.1
    assert final["mutual/1"] < CHANCE - 0.05
    assert list(final) == ["mutual/1", "mutual/2", "self/1", "self/2", "self/3"]


def test_behind_bottlenecks_counts_what_passes_them():
    """Modules are measured behind their bottlenecks, the last one as it is."""
    network, data = Views(halves, halves, halves), data_of(steady(1280, 8))
    passed, stopped = nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1)
    nn.init.zeros_(stopped.weight)
    under_test = NetworkUnderTest(network, network.cuts, bottlenecks=[passed, stopped])
    result = estimate_information({"network": under_test}, data, QUICK)
    final = of(result)
    assert final["mutual/1"] < CHANCE / 2
    assert final["mutual/2"] == pytest.approx(CHANCE, abs=0.03)
    assert final["self/2"] == pytest.approx(CHANCE, abs=0.03)
    assert final["self/3"] < CHANCE / 2
    assert result.taps["network"] == ("parts.0 bottleneck", "parts.1 bottleneck", "parts.2")
    assert passed.training
    assert not passed.num_batches_tracked


def test_one_bottleneck_for_every_tap_but_the_last():
    network = Views(halves, halves, halves)
    under_test = NetworkUnderTest(network, network.cuts, bottlenecks=[nn.Identity()])
    with pytest.raises(ConfigError, match="1 bottlenecks for 3 taps"):
        estimate_information({"network": under_test}, data_of(steady(320, 8), 64), QUICK)


def test_self_information_is_what_places_share():
    own, shared = noise(1280, 4), steady(1280, 4)
    values = torch.cat([own, 0.3 * own + shared], 1)
    final = losses(Views(halves, others), data_of(values))
    assert final["self/2"] < final["self/1"] - 0.3


@pytest.mark.parametrize(("global_pool", "informed"), [("token", True), ("avg", False)])
def test_the_last_feature_is_pooled_as_the_classifier_does(global_pool, informed):
    """Of tokens the first alone knows the image, and the patches are other images' noise."""

    def tokens(x):
        return torch.cat([x[:, :4, :1, 0], x[:, 4:].flatten(2)], 2).transpose(1, 2)

    network = Views(halves, tokens)
    network.num_prefix_tokens, network.global_pool = 1, global_pool
    values = torch.cat([steady(1280, 4), noise(1280, 4)], 1)
    assert (losses(network, data_of(values))["mutual/1"] < CHANCE - 0.3) == informed


def test_blind_to_the_scale_of_features():
    config, data = replace(QUICK, steps=10), data_of(steady(320, 8), 64)
    one = Views(halves, lambda x: halves(x) + 0.5 * others(x))
    other = Views(lambda x: 1000 * halves(x) - 7, lambda x: 20 * halves(x) + 10 * others(x))
    final = losses(one, data, config)
    assert losses(other, data, config) == pytest.approx(final, abs=2e-3)


def test_held_out_images_are_mixed():
    """In class order a batch would hold one class alone, and no critic could tell images apart."""
    labels = torch.arange(1280) // 640 % 2
    order = torch.arange(1024) % 2 * 640 + torch.arange(1024) // 2 % 640
    values = (2.0 * labels - 1)[:, None, None, None].expand(-1, 8, 2, 2) + 0.1 * noise(1280, 8)
    train, held = (
        values[order],
        values[torch.arange(128).repeat(2) + torch.tensor([0, 640]).repeat_interleave(128)],
    )
    data = data_of(torch.cat([train, held]))
    assert losses(Views(halves, others), data)["mutual/1"] < CHANCE - 0.2


@pytest.fixture
def trained(tiny_net):
    """A network with BatchNorm, left in training mode."""
    return tiny_net.train()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (96, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return replace(
        data_of(noise(4, 3), 2),
        train=InMemoryImages(pictures[:64], torch.arange(64) % 5),
        val=InMemoryImages(pictures[64:], torch.arange(32) % 5),
        classes=list("abcde"),
        crop_padding=2,
        flip=True,
    )


SHORT = EstimatorConfig(steps=4, batch_size=16, width=8)


@pytest.mark.parametrize("trainable", [False, True])
def test_the_network_stays_as_it_is(trained, images, trainable):
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    draws = torch.get_rng_state()
    estimate_information({"network": trained}, images, replace(SHORT, trainable=trainable))
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(module.training for module in trained.modules())
    assert not any(module._forward_hooks for module in trained.modules())
    assert all(p.grad is None and p.requires_grad for p in trained.parameters())
    assert torch.equal(draws, torch.get_rng_state())


def test_a_frozen_network_stays_frozen_inside_too(trained, images, monkeypatch):
    """The copy that is measured neither learns nor moves its BatchNorm."""
    from selfdistill.information import estimation

    copies = []

    def recorded_copy(network):
        copies.append(original(network))
        return copies[-1]

    original = estimation.copy_without_hooks
    monkeypatch.setattr(estimation, "copy_without_hooks", recorded_copy)
    for trainable in (False, True):
        estimate_information({"network": trained}, images, replace(SHORT, trainable=trainable))
    frozen, moved = (
        [torch.equal(*pair) for pair in zip(trained.state_dict().values(), copy, strict=True)]
        for copy in (list(network.state_dict().values()) for network in copies)
    )
    assert all(frozen)
    assert not any(moved)


def test_is_a_function_of_the_seed(trained, images):
    config = replace(SHORT, seeds=(0, 1))
    first, again = (
        estimate_information({"network": trained}, images, config).rows for _ in range(2)
    )
    assert first == again
    by_seed = [[r.loss for r in first if r.seed == seed] for seed in (0, 1)]
    assert by_seed[0] != by_seed[1]
    alone = estimate_information({"network": trained}, images, replace(SHORT, seeds=(1,))).rows
    assert [row.loss for row in alone] == by_seed[1]


def test_networks_see_the_same(trained, images):
    result = estimate_information({"one": trained, "two": NetworkUnderTest(trained)}, images, SHORT)
    assert of(result, "one") == of(result, "two")
    other = NetworkUnderTest(trained, taps="stage2,stage4", mean=(0.0,) * 3, std=(1.0,) * 3)
    result = estimate_information({"other": other}, images, SHORT)
    assert result.taps["other"] == ("stage2", "stage4")
    assert result.terms("other") == ["mutual/1", "self/1", "self/2"]


def test_a_network_that_learns_along_has_other_losses(trained, images):
    frozen, moved = (
        of(estimate_information({"network": trained}, images, replace(SHORT, trainable=trainable)))
        for trainable in (False, True)
    )
    assert frozen != moved


def test_evaluates_on_held_out_images_twenty_times(trained, images):
    result = estimate_information({"network": trained}, images, replace(SHORT, steps=40))
    for split in (HELD_OUT, TRAINING):
        assert result.curve("network", "self/1", split).steps.tolist() == list(range(2, 41, 2))
    assert result.held_out == "32 validation images"


def test_one_cell_has_no_self_information(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(network, nn.Linear(4, 5))
    result = estimate_information(
        {"network": NetworkUnderTest(network, taps="0.0,0.1")}, images, SHORT
    )
    assert result.terms("network") == ["mutual/1", "self/1"]


@pytest.mark.parametrize(
    ("estimator", "critic", "chance"),
    [("infonce", "separable", math.log(64)), ("infonce", "concat", math.log(2)),
     ("dv", "separable", 0.0), ("nwj", "separable", 0.0)],
)  # fmt: skip
def test_other_estimators_find_nothing_in_noise_either(estimator, critic, chance):
    config = replace(QUICK, steps=30, lr=0.02, estimator=estimator, critic=critic)
    result = estimate_information({"n": Views(halves, others)}, data_of(noise(1280, 8)), config)
    assert result.chance == pytest.approx(chance)
    assert of(result, "n")["mutual/1"] == pytest.approx(chance, abs=0.1)


def test_info_nce_is_a_bound_in_nats():
    """Four copies of one Gaussian pair of I = 0.83 nats; the bound may come near, not above."""
    x, y = noise(2304, 2, side=1).split(1, 1)
    rho = 0.9
    pairs = torch.cat([x, rho * x + math.sqrt(1 - rho**2) * y], 1)
    network = Views(lambda x: torch.cat([x[:, :1], x[:, :1] ** 2], 1), lambda x: x[:, 1:])
    result = estimate_information(
        {"n": network}, data_of(pairs), replace(QUICK, estimator="infonce")
    )
    information = -0.5 * math.log(1 - rho**2)
    assert 0.7 < (result.chance - of(result, "n")["mutual/1"]) / information < 1.1


def test_without_validation_images(images):
    test = replace(images, val=None, test=images.val)
    none = replace(images, val=None)
    network = Views(lambda x: x[:, :2], lambda x: x, classes=5)
    assert estimate_information({"n": network}, test, SHORT).held_out == "32 test images"
    held_out = estimate_information({"n": network}, none, SHORT).held_out
    assert held_out == "6 training images of the network, held out from the critics"


@pytest.mark.parametrize(
    ("network", "sentence"),
    [(Views(halves), "one module"), (nn.Sequential(nn.Conv2d(1, 4, 1)), "takes 1 channels")],
)
def test_networks_that_cannot_be_measured(network, sentence):
    with pytest.raises(ConfigError, match=sentence):
        estimate_information({"n": network}, data_of(noise(64, 8), 16), SHORT)


@pytest.mark.parametrize("sizes", [(3, 1), (1, 3)])
def test_too_few_images(images, sizes):
    few = [images.train.take(torch.arange(n)) for n in sizes]
    with pytest.raises(DataError, match="give two or more of each"):
        estimate_information(
            {"n": Views(halves, halves)}, replace(images, train=few[0], val=few[1]), SHORT
        )


def test_too_few_images_to_hold_some_out(images):
    few = replace(images, train=images.train.take(torch.arange(3)), val=None)
    with pytest.raises(DataError, match="too few to hold some out"):
        estimate_information({"n": Views(halves, halves)}, few, SHORT)


def test_a_loss_that_is_not_finite():
    config = replace(SHORT, lr=1e4, estimator="nwj", steps=20)
    with pytest.raises(DivergenceError, match="lower --lr"):
        estimate_information({"n": Views(halves, others)}, data_of(steady(128, 8), 32), config)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"critic": "seperable"}, "no critic 'seperable' .did you mean 'separable'"),
        ({"estimator": "jds"}, "no estimator 'jds' .did you mean 'jsd'"),
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 1}, "batch_size must be 2 or more, not 1"),
        ({"lr": 0.0}, "lr=0"),
        ({"seeds": ()}, "one or more"),
    ],
)
def test_configs_that_do_not_fit(keys, sentence):
    with pytest.raises(ConfigError, match=sentence):
        EstimatorConfig(**keys)
