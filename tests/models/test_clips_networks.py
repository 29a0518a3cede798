"""Networks for clips: shapes, costs by hand, and what is refused."""

import pytest
import torch
from torch import nn

from selfdistill.core import ConfigError
from selfdistill.costs.macs import network_cost
from selfdistill.models import build, list_models
from selfdistill.models.build import is_absent_from_source
from selfdistill.models.clips import NETWORKS
from selfdistill.modules.last_layer import replace_last_layer


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_stages(name):
    network = build(f"clips/{name}", num_classes=7, in_channels=1).eval()
    assert network(torch.zeros(2, 1, 8, 32, 32)).shape == (2, 7)
    assert all(hasattr(network, stage) for stage in network.cuts)


def conv(inputs: int, outputs: int, kernel: int, places: int) -> tuple[int, int]:
    """Parameters with batch norm, and multiply-adds."""
    weights = inputs * outputs * kernel**3
    return weights + 2 * outputs, weights * places


def test_costs_by_hand():
    network, places = build("clips/r3d10_w8", num_classes=5), 8 * 16 * 16  # behind the stem
    parts = [conv(3, 8, 3, places), *[conv(8, 8, 3, places)] * 2]
    for inputs, outputs in ((8, 16), (16, 32), (32, 64)):
        places //= 8
        kernels = ((inputs, 3), (outputs, 3), (inputs, 1))
        parts += [conv(channels, outputs, kernel, places) for channels, kernel in kernels]
    parameters, macs = map(sum, zip(*parts, strict=True))
    cost = network_cost(network, torch.zeros(2, 3, 8, 32, 32))
    assert cost == (parameters + 64 * 5 + 5, macs + 64 * 5)


def test_convolutions_are_drawn_by_their_fan_out():
    torch.manual_seed(0)
    weight = build("clips/r3d18_w32", num_classes=2).layer4[1].residual[0].conv.weight
    assert weight.std().item() == pytest.approx((2 / (256 * 27)) ** 0.5, rel=0.02)


def test_torchvisions_networks_of_clips_are_known():
    names = list_models("torchvision/")
    assert {"torchvision/r3d_18", "torchvision/s3d", "torchvision/r2plus1d_18"} <= set(names)
    assert not is_absent_from_source("torchvision", "mc3_18")
    network = build("torchvision/r3d_18", num_classes=3).eval()
    assert network(torch.zeros(1, 3, 4, 16, 16)).shape == (1, 3)


def test_a_last_layer_that_is_a_convolution_over_time():
    network = nn.Sequential(nn.Conv3d(3, 4, 1), nn.ReLU(), nn.Conv3d(4, 400, 1))
    assert replace_last_layer(network, 6) == 400
    assert network(torch.zeros(1, 3, 2, 2, 2)).shape == (1, 6, 2, 2, 2)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"model": "clips/r3d10"}, "there is no network 'clips/r3d10' .*did you mean"),
        ({"model": "clips/r3d10_w8", "weights": "pretrained"}, "take torchvision/r3d_18"),
    ],
)
def test_what_there_is_not(keywords, message):
    with pytest.raises(ConfigError, match=message):
        build(num_classes=2, **keywords)
