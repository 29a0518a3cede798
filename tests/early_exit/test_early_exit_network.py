"""Anytime inference: what an image leaves with is its exit's own answer, and the rest is saved."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from selfdistill.core import ConfigError
from selfdistill.data import ImageData
from selfdistill.data.in_memory import InMemoryImages
from selfdistill.early_exit.network import (
    build_early_exit_network,
    collect_exit_decisions,
    exit_costs,
    time_exits,
)
from selfdistill.export.extract_predictor import extract_predictor
from selfdistill.recipe.build_method import build_method

TAPS = "stage1,stage2,stage3,stage4"


@pytest.fixture
def method(tiny_net, tiny_task):
    """Exits that are sure of some images: their last layers are made large."""
    built = build_method("exits", tiny_net, tiny_task, TAPS, {})
    with torch.no_grad():
        for head in built.exits.heads:
            head[-1].weight *= 20
    return built.eval()


@pytest.fixture
def images():
    return torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def outputs(method, images):
    """{predictor: logits} as numpy."""
    with torch.no_grad():
        return {name: out.numpy() for name, out in method.predict(images).items()}


@pytest.fixture
def thresholds(outputs):
    """Two images of five leave at each exit."""
    return [float(np.quantile(softmax(outputs[n], 1).max(1), 0.6)) for n in list(outputs)[:-1]]


def expected(outputs, thresholds):
    """Exit by exit, image by image: (where each leaves, with which logits)."""
    names, expected_exits, logits = list(outputs), [], []
    for i in range(len(outputs["student"])):
        confidences = (softmax(outputs[n][i].astype(np.float64)).max() for n in names[:-1])
        leaves = [k for k, (s, t) in enumerate(zip(confidences, thresholds, strict=True)) if s >= t]
        expected_exits.append(min(leaves, default=len(names) - 1))
        logits.append(outputs[names[expected_exits[-1]]][i])
    return np.array(expected_exits), np.stack(logits)


def test_each_image_leaves_with_what_its_exit_says_of_it(method, images, outputs, thresholds):
    answer = build_early_exit_network(method, thresholds)(images)
    expected_exits, logits = expected(outputs, thresholds)
    assert set(expected_exits) == {0, 1, 2, 3}  # else nothing is tested
    assert np.array_equal(answer.exits, expected_exits)
    np.testing.assert_allclose(answer.logits, logits, rtol=1e-4, atol=1e-4)


def test_one_by_one_is_the_same(method, images, thresholds):
    network = build_early_exit_network(method, thresholds)
    logits, exits = network(images)
    singles = [network(image[None]) for image in images]
    assert torch.equal(torch.cat([a.exits for a in singles]), exits)
    torch.testing.assert_close(torch.cat([a.logits for a in singles]), logits)


def test_who_left_is_not_computed_on(method, images, outputs, thresholds):
    network, batch_sizes = build_early_exit_network(method, thresholds), []
    for stage in network.stages:
        stage.register_forward_hook(lambda module, args, out: batch_sizes.append(len(args[0])))
    network(images)
    expected_exits, _ = expected(outputs, thresholds)
    assert batch_sizes == [(expected_exits >= k).sum() for k in range(4)]


def test_nobody_goes_on_if_all_are_sure(method, images):
    network = build_early_exit_network(method, [1e-6, 0.9, 0.9])
    network.stages[1] = None
    assert set(network(images).exits.tolist()) == {0}


def test_an_exit_that_is_left_out(method, images, outputs, thresholds):
    network = build_early_exit_network(method, [None, thresholds[1], None])
    assert network.names == ("exit2", "student")
    assert network.thresholds == (thresholds[1],)
    assert len(network.stages) == 2
    logits, exits = network(images)
    expected_exits, want = expected({n: outputs[n] for n in network.names}, network.thresholds)
    assert np.array_equal(exits, expected_exits)
    np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-4)


def test_without_exits_it_is_the_student(method, images, outputs):
    answer = build_early_exit_network(method, [None] * 3)(images)
    assert np.array_equal(answer.logits, outputs["student"])
    assert not answer.exits.any()


def test_no_images(method):
    answer = build_early_exit_network(method, [0.5] * 3)(torch.zeros(0, 3, 16, 16))
    assert answer.logits.shape == (0, 5)
    assert answer.exits.shape == (0,)


def test_it_stands_by_itself(method):
    network = build_early_exit_network(method, [0.5] * 3)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert not {id(p) for p in network.parameters()} & {id(p) for p in method.parameters()}
    assert not any(m.training for m in network.modules())


def test_prices_are_what_runs(method, images):
    costs = exit_costs(method, images)
    for k, want in enumerate(costs.per_exit([0.5] * 3)):
        network = build_early_exit_network(method, [1.0] * k + [1e-6] * (3 - k))
        network.thresholds = (2.0,) * k + network.thresholds[k:]
        with FlopCounterMode(display=False) as counter:
            assert network(images[:1]).exits == k
        assert counter.get_total_flops() // 2 == want


def test_decisions_of_all_exits(method, images, outputs, thresholds):
    pixels = (images.clamp(-2, 2) * 60 + 127).to(torch.uint8)
    labels = torch.arange(40) % 5
    part = InMemoryImages(pixels, labels)
    data = ImageData(
        "made", part, None, part, list("abcde"), (0.5,) * 3, (0.2,) * 3, 0, False, False
    )
    decisions = collect_exit_decisions(method, data, part)
    for k, name in enumerate(outputs):
        logits = extract_predictor(method, name)((pixels / 255 - 0.5) / 0.2).detach().numpy()
        assert np.array_equal(decisions.correct[:, k], logits.argmax(1) == labels.numpy())
        if name != "student":
            want = softmax(logits, 1).max(1)
            np.testing.assert_allclose(decisions.confidence[:, k], want, rtol=1e-4)


def test_every_way_out_is_timed(method, images):
    networks = [
        build_early_exit_network(method, [0.5] * 3),
        build_early_exit_network(method, [None, 0.5, None]),
    ]
    latencies = time_exits(networks, method.predictors()["student"], images, seconds=0)
    assert [len(times) for times in latencies.per_exit] == [4, 2]
    assert all(
        seconds > 0 for times in latencies.per_exit for seconds in (*times, latencies.student)
    )


def test_a_method_without_exits(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="no exits for an image to leave at"):
        build_early_exit_network(build_method("ce", tiny_net, tiny_task, "auto", {}), [])


class Around(nn.Module):
    """A connection leads around the first stage."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 3, 2, 1)
        self.third, self.fc = nn.Conv2d(4, 4, 3, 2, 1), nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.third(self.first(x) + self.second(x)).mean((2, 3)))


def test_a_network_that_cannot_be_parted(tiny_task):
    method = build_method("exits", Around(), tiny_task, "first,third", {}).eval()
    with pytest.raises(ConfigError, match=r"Around cannot be computed on .*around tap 'first'"):
        build_early_exit_network(method, [0.5])
