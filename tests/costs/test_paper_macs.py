"""The counting of MUSE's Table 3 against the table, closed forms, and what really runs."""

import pytest
import torch
from torch import nn

from selfdistill.core import ConfigError
from selfdistill.costs.macs import NetworkCost, network_cost
from selfdistill.costs.paper_macs import paper_network_cost
from selfdistill.models import build
from selfdistill.models.cifar import NETWORKS
from selfdistill.models.cifar.nasnet import ReductionCell

# https://arxiv.org/abs/2110.12606, table 3: millions of parameters and multiply-adds of the whole
# network and of the exit that MUSE takes, as printed; the exit's place among the cuts; image side
TABLE_3 = {
    "vgg19_bn": [(20.0, 20499, 2.3, 2380), 2, 32],
    "resnet18": [(11.2, 256, 2.8, 248), 2, 32],
    "resnet34": [(21.3, 393, 8.2, 380), 2, 32],
    "resnet34 on larger images": [(21.3, 1543, 8.2, 1520), 2, 64],
    "resnet50": [(23.4, 431, 1.4, 370), 1, 32],
    "resnet101": [(42.4, 507, 1.4, 370), 1, 32],
    "resnet152": [(58.0, 636, 2.5, 441), 1, 32],
    "nasnet": [(5.1, 241, 1.9, 238), 2, 32],
    "efficientnet_b0": [(4.0, 454, 0.8, 290), 1, 224],
}


def shapes_only(name):
    with torch.device("meta"):
        network = NETWORKS[name.split()[0]](num_classes=100)
        return like_the_zoo(network) if name == "nasnet" else network


def like_the_zoo(network):
    """With what the zoo's NASNet has beyond ours, and in its order.

    Each of its cells has three convolutions to fit the earlier input, of which it uses two, one or
    none; they come last in a cell. Those and the ones of reduction cells have biases.
    """
    channels = [44, 44, *[264] * 4, 352, *[528] * 4, 704, *[1056] * 4]  # of the earlier input
    order = ["previous7a", "last5", "previous7b", "previous5", "inner3"]
    for cell, earlier in zip(network.cells, channels, strict=False):
        width = cell.fit_last.conv.out_channels
        del cell.fit_previous
        if isinstance(cell, ReductionCell):
            for name in order:
                branch = cell.get_submodule(name)
                delattr(cell, name)
                cell.add_module(name, branch)
            for convolution in cell.modules():
                if isinstance(convolution, nn.Conv2d):
                    convolution.bias = nn.Parameter(torch.empty(convolution.out_channels))
        fits = [nn.Conv2d(earlier, out, 1) for out in (width // 2, width // 2, width)]
        cell.zoo_fit = nn.ModuleList(fits)
    return network


def digits(value: float, like: float) -> float:
    return round(value / 1e6, 0 if isinstance(like, int) else 1)


@pytest.mark.parametrize("name", TABLE_3)
def test_all_digits_of_the_table(name):
    printed, exit_at, side = TABLE_3[name]
    network = shapes_only(name)
    image = torch.empty(1, 3, side, side, device="meta")
    full, early = (
        paper_network_cost(network, image),
        paper_network_cost(network, image, network.cuts[exit_at]),
    )
    counts = [*full, *early]
    assert [digits(f, p) for f, p in zip(counts, printed, strict=True)] == list(printed)
    for macs, published in zip(counts[1::2], printed[1::2], strict=True):
        assert macs / 1e6 == pytest.approx(published, rel=0.005)


def test_our_nasnet_lacks_the_idle_convolutions():
    with torch.device("meta"):
        network = NETWORKS["nasnet"](num_classes=100)
    spent = paper_network_cost(network, torch.empty(1, 3, 32, 32, device="meta"))
    assert spent.parameters / 1e6 == pytest.approx(5.1 - 0.9, rel=0.02)
    assert spent.macs / 1e6 == pytest.approx(230.7, abs=0.1)


def test_a_chain_without_pools_is_counted_as_it_runs():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1, groups=4), nn.Flatten()
    )
    image = torch.zeros(1, 3, 8, 8)
    assert paper_network_cost(network, image) == network_cost(network, image)


def test_a_pool_shrinks_nothing_and_a_linear_layer_is_free():
    network = nn.Sequential(
        nn.MaxPool2d(2), nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(32, 5)
    )
    image = torch.zeros(1, 1, 8, 8)
    assert paper_network_cost(network, image) == NetworkCost(2, 2 * 64)
    assert network_cost(network, image) == NetworkCost(2 + 32 * 5 + 5, 2 * 16 + 32 * 5)


def test_a_shortcut_beside_a_block_shrinks_once_more():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.main = nn.Conv2d(1, 1, 1, 2, bias=False)
            self.shortcut = nn.Conv2d(1, 1, 1, 2, bias=False)

        def forward(self, x):
            return self.main(x) + self.shortcut(x)

    image = torch.zeros(1, 1, 8, 8)
    assert paper_network_cost(Block(), image) == NetworkCost(2, 16 + 4)
    assert network_cost(Block(), image) == NetworkCost(2, 16 + 16)


def test_below_a_pixel_only_the_stride_itself_counts():
    network = nn.Sequential(*(nn.Conv2d(1, 1, 1, s, bias=False) for s in (2, 2, 2, 1)))
    assert paper_network_cost(network, torch.zeros(1, 1, 4, 4)) == NetworkCost(
        4, round(4 + 1 + 0.25 + 1)
    )


def test_width_and_height_are_two_numbers():
    network = nn.Conv2d(1, 1, 1, (2, 1), bias=False)
    assert paper_network_cost(network, torch.zeros(1, 1, 8, 6)) == NetworkCost(1, 4 * 6)


def test_an_exit_ends_with_its_tap():
    network = build("cifar/resnet8", num_classes=10)
    image = torch.zeros(1, 3, 32, 32)
    assert paper_network_cost(network, image, "layer3") == paper_network_cost(network, image)
    parts = [paper_network_cost(network, image, name) for name in network.cuts]
    assert parts == sorted(parts)
    assert len(set(parts)) == len(parts)
    with pytest.raises(ConfigError, match="did you mean 'layer1'"):
        paper_network_cost(network, image, "layr1")


def test_names_that_begin_alike_are_two_modules():
    network = nn.ModuleDict({name: nn.Conv2d(1, 1, 1, bias=False) for name in ("a", "a1")})
    assert paper_network_cost(network, torch.zeros(1, 1, 1, 1), "a") == NetworkCost(1, 1)
