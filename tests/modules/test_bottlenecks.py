"""Bottlenecks by size and shape."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from selfdistill.modules.bottlenecks import BOTTLENECKS, ByotBottleneck, SlimBottleneck, exit_grid

LAST = (512, 4, 4)  # of ResNet-18 at 32×32
sides = st.integers(1, 40)


@pytest.mark.parametrize(
    ("shape", "want"),
    [((64, 32, 32), 1_124_608), ((128, 16, 16), 346_368), ((256, 8, 8), 166_144)],
)
def test_byot_parameters_of_resnet18(shape, want):
    with torch.device("meta"):
        assert sum(p.numel() for p in ByotBottleneck(shape, LAST).parameters()) == want


@pytest.mark.parametrize(("shape", "k"), [((64, 32, 32), 8), ((128, 16, 16), 4), ((256, 8, 8), 2)])
def test_byot_kernels_of_resnet18(shape, k):
    with torch.device("meta"):
        convs = [m for m in ByotBottleneck(shape, LAST).modules() if isinstance(m, nn.Conv2d)]
    assert [c.kernel_size for c in convs] == [(1, 1), (k, k), (1, 1)]
    assert [c.stride for c in convs] == [(1, 1), (k, k), (1, 1)]
    assert [c.out_channels for c in convs] == [128, 128, 512]


@pytest.mark.parametrize("name", sorted(BOTTLENECKS))
@pytest.mark.parametrize(
    ("shape", "last", "want"),
    [
        ((6, 32, 32), (8, 4, 4), (8, 4, 4)),
        ((6, 8, 8), (8, 8, 8), (8, 8, 8)),
        ((6, 17, 1), (8, 17, 1), (8, 17, 1)),  # tokens
        ((6, 8, 8), (8, 1, 1), (8, 4, 4)),  # a last map of one cell
        ((6, 2, 2), (8, 1, 1), (8, 2, 2)),
        ((6, 1, 1), (8, 1, 1), (8, 1, 1)),
        ((6, 15, 11), (8, 7, 5), (8, 7, 5)),  # sides that do not divide
        ((6, 9, 7), (8, 2, 3), (8, 4, 4)),
        ((2, 8, 8), (3, 4, 4), (3, 4, 4)),  # fewer channels than four
        ((2, 8, 8), (1, 4, 4), (1, 4, 4)),
    ],
)
def test_output_is_shaped_like_the_last_feature(name, shape, last, want):
    bottleneck = BOTTLENECKS[name](shape, last)
    assert bottleneck(torch.randn(2, *shape)).shape == (2, *want)


@pytest.mark.parametrize("name", sorted(BOTTLENECKS))
def test_serves_images_of_another_size(name):
    bottleneck = BOTTLENECKS[name]((6, 8, 8), (8, 4, 4))
    assert bottleneck(torch.randn(2, 6, 14, 10)).shape == (2, 8, 4, 4)


@settings(max_examples=200, deadline=None)
@given(st.tuples(sides, sides), st.tuples(sides, sides))
def test_grid_is_between_the_last_feature_and_this_one(shape, last):
    for side, here, end in zip(exit_grid((3, *shape), (5, *last)), shape, last, strict=True):
        assert 1 <= side <= here
        assert side >= min(here, 4)
        if end <= here:
            assert side >= end
            assert side == end or side <= 4


def test_slim_pools_before_it_computes():
    bottleneck = SlimBottleneck((6, 32, 32), (8, 4, 4))
    seen = []
    for module in bottleneck.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, args, out: seen.append(args[0].shape[-2:]))
    bottleneck(torch.randn(2, 6, 32, 32))
    assert seen == [(4, 4)] * 3


@pytest.mark.parametrize("name", sorted(BOTTLENECKS))
def test_everything_is_trained(name):
    bottleneck = BOTTLENECKS[name]((6, 8, 8), (8, 4, 4))
    bottleneck(torch.randn(2, 6, 8, 8)).square().sum().backward()
    assert all(p.grad is not None for p in bottleneck.parameters())
