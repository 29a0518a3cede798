"""Narrower copies of networks: what they keep, that they run, and which cannot be made."""

import pytest
import torch
from torch import nn

from selfdistill.core import ConfigError
from selfdistill.costs.macs import network_cost
from selfdistill.models import build
from selfdistill.modules.narrowing import narrowed, widest_chain
from selfdistill.taps import Taps, resolve_taps

EXAMPLE = torch.zeros(2, 3, 16, 16)


def chain_cost(parts: list[nn.Module]) -> int:
    return network_cost(nn.Sequential(*parts), EXAMPLE).macs


@pytest.mark.parametrize("from_end", [False, True])
def test_keeps_the_first_or_the_last_channels(from_end):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    network[1].running_mean = torch.arange(8.0)
    copy = narrowed(network, 0.5, EXAMPLE, from_end=from_end)
    kept, few = (slice(4, 8), slice(2, 4)) if from_end else (slice(0, 4), slice(0, 2))
    assert torch.equal(copy[0].weight, network[0].weight[kept])  # of all channels of the image
    assert torch.equal(copy[0].bias, network[0].bias[kept])
    assert torch.equal(copy[1].running_mean, network[1].running_mean[kept])
    assert torch.equal(copy[2].weight, network[2].weight[few, kept])
    assert copy(EXAMPLE).shape == (2, 2, 14, 14)
    assert network(EXAMPLE).shape == (2, 4, 14, 14)
    assert not {id(p) for p in copy.parameters()} & {id(p) for p in network.parameters()}


def test_the_whole_width_is_the_network_itself():
    network = build("cifar/shufflenet_v2", num_classes=5).eval()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(narrowed(network, 1.0, EXAMPLE).eval()(x), network(x))


def test_layers_of_every_kind():
    layers = [
        nn.Conv2d(3, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),  # one channel a group
        nn.Conv2d(16, 32, 3, groups=4),
        nn.GroupNorm(4, 32),
        nn.PReLU(32),
        nn.ConvTranspose2d(32, 16, 2),
        nn.Flatten(2),
        nn.LayerNorm(225),
    ]
    copy = narrowed(nn.Sequential(*layers), 0.5, EXAMPLE)
    assert copy[1].groups == 8
    assert copy[2].weight.shape == (16, 2, 3, 3)
    assert copy[5](torch.zeros(2, 16, 14, 14)).shape == (2, 8, 15, 15)
    assert copy[7].normalized_shape == (112,)


@pytest.mark.parametrize(
    "name",
    [
        "cifar/resnet20",
        "cifar/vgg8",
        "cifar/mobilenet_v2",
        "cifar/shufflenet_v2",
        "cifar/densenet121",
        "timm/regnetx_002",
        "timm/convnext_atto",
        "timm/mobilenetv3_small_100",
    ],
)
def test_the_widest_that_fits(name):
    network, example = build(name, num_classes=5), torch.zeros(2, 3, 32, 32)
    taps = Taps(network, resolve_taps(network, "stages", example), example=example)
    whole = network_cost(network, example).macs

    def cost(parts: list[nn.Module]) -> int:
        return network_cost(nn.Sequential(*parts), example).macs

    width, parts = widest_chain(taps, 0.25, cost, 0.25 * whole, example)
    assert 0.3 < width < 0.7
    x = torch.randn(2, 3, 32, 32)
    for part, (channels, *sides) in zip(parts, taps.shapes.values(), strict=True):
        x = part(x)
        assert list(x.shape[-2:]) == sides
        assert x.shape[1] == pytest.approx(width * channels, abs=4)
    assert 0.1 * whole < cost(parts) <= 0.25 * whole


def test_no_width_is_cheap_enough():
    network = build("cifar/resnet8", num_classes=5)
    taps = Taps(network, ["layer1", "layer3"], example=EXAMPLE)
    with pytest.raises(ConfigError, match="no narrower copy of ResNet is both a network and cheap"):
        widest_chain(taps, 0.5, chain_cost, 10, EXAMPLE)


def test_tokens_have_their_width_written_into_their_code(capfd):
    from timm.models.vision_transformer import VisionTransformer

    network = VisionTransformer(16, 8, depth=2, embed_dim=24, num_heads=2, num_classes=5)
    taps = Taps(network, ["blocks.0", "blocks.1"], example=EXAMPLE)
    with pytest.raises(ConfigError, match=r"cheap enough \(that of 0\.\d+ fails: .*\); take"):
        widest_chain(taps, 0.5, chain_cost, 1e9, EXAMPLE)
    assert capfd.readouterr().err == ""  # torch.fx prints tracebacks of its own
