"""The refining pyramid: sizes as published, TensorFlow's pooling, and what flows where."""

import math

import numpy as np
import pytest
import torch

from selfdistill.core import ConfigError
from selfdistill.modules.bifpn import BiFPN, Fusion, MergedLevels, pooled_down

RESNET18, WRN_16_2 = (64, 128, 256, 512), (32, 64, 128)


def pyramid(channels, width=2, depth=2, upsampling="nearest"):
    torch.manual_seed(0)
    return BiFPN(channels, [width * c for c in channels], depth=depth, upsampling=upsampling)


def maps(channels, sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(2, c, *s, generator=generator) for c, s in zip(channels, sizes, strict=True)]


@pytest.mark.parametrize(
    ("channels", "width", "depth", "want"),
    [(RESNET18, 2, 2, 6_375_794), (RESNET18, 1, 1, 1_538_866), (WRN_16_2, 2, 2, 411_885)],
)
def test_parameters_of_the_authors_code(channels, width, depth, want):
    """With a linear layer to 100 classes; 411,885 are 0.59 of the network, as in Table 6."""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in pyramid(channels, width, depth).parameters())
    assert parameters + (width * channels[-1] + 1) * 100 == want


def by_loops(x, want):
    """TensorFlow's "same" pooling, 3×3 and stride 2, one window after the other."""
    out = np.empty((*x.shape[:2], *want))
    spans = []
    for n, target in zip(x.shape[2:], want, strict=True):
        missing = max((target - 1) * 2 + 3 - n, 0)
        starts = [2 * i - missing // 2 for i in range(target)]
        spans.append([(max(s, 0), min(s + 3, n)) for s in starts])
    for i, (top, bottom) in enumerate(spans[0]):
        for j, (left, right) in enumerate(spans[1]):
            out[:, :, i, j] = x[:, :, top:bottom, left:right].max((2, 3))
    return out


@pytest.mark.parametrize("size", [(32, 32), (7, 7), (8, 7), (5, 12), (2, 2), (3, 1), (1, 2)])
@pytest.mark.parametrize("sign", [1, -1])
def test_pooling_is_tensorflows(size, sign):
    want = tuple(math.ceil(n / 2) for n in size)
    ramp = sign * torch.arange(math.prod(size)).float().reshape(1, 1, *size)
    torch.manual_seed(0)
    for x in (ramp, torch.randn(2, 3, *size)):
        got = pooled_down(x, torch.zeros(1, 1, *want))
        np.testing.assert_array_equal(got.numpy(), by_loops(x.numpy(), want))


def test_pooling_to_other_sizes():
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert pooled_down(x, torch.zeros(1, 1, 2, 2)).flatten().tolist() == [27, 31, 59, 63]
    assert pooled_down(x, torch.zeros(1, 1, 8, 8)) is x
    assert pooled_down(x, torch.zeros(1, 1, 8, 4)).shape[-2:] == (8, 4)


@pytest.mark.parametrize("inputs", [2, 3])
def test_fusion_begins_as_the_average(inputs):
    fusion = Fusion(inputs, 4, 1)
    x = torch.rand(inputs, 2, 4, 3, 3)
    torch.testing.assert_close(fusion.mean(*x), x.mean(0), rtol=1e-6, atol=1e-6)


def test_fusion_by_hand_and_without_negative_weights():
    fusion = Fusion(3, 1, 1)
    fusion.weights.data = torch.tensor([1.0, -5.0, 3.0])
    x = torch.tensor([8.0, 1e6, 4.0]).reshape(3, 1, 1, 1, 1)
    assert fusion.mean(*x).item() == pytest.approx((8 + 3 * 4) / 4, rel=1e-5)
    x[1] = -x[1]
    assert fusion.mean(*x).item() == pytest.approx((8 + 3 * 4) / 4, rel=1e-5)


SIZES = {
    "halves": [(32, 32), (16, 16), (8, 8), (4, 4)],
    "odd": [(15, 11), (8, 6), (4, 3), (2, 2)],
    "quarters": [(16, 16), (4, 4), (4, 4), (1, 1)],
    "tokens": [(17, 1)] * 4,
    "growing": [(4, 4), (8, 8), (6, 2), (6, 4)],
}


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_any_sizes(sizes, levels, upsampling):
    channels = (3, 4, 6, 5)[:levels]
    refined = pyramid(channels, upsampling=upsampling)(maps(channels, sizes[:levels]))
    want = [(2, 2 * c, *s) for c, s in zip(channels, sizes, strict=False)]
    assert [tuple(x.shape) for x in refined] == want
    assert all((x >= 0).all() for x in refined)


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_every_feature_reaches_every_map(levels):
    channels = (3, 4, 6, 5)[:levels]
    net, given = pyramid(channels).eval(), maps(channels, SIZES["halves"][:levels])
    before = net(given)
    for i in range(levels):
        changed = [torch.zeros_like(x) if j == i else x for j, x in enumerate(given)]
        after = net(changed)
        assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True)), i


def test_the_deepest_map_has_two_inputs_only():
    """Its own feature, read anew, and the map below it, but not what the way down began with."""
    channels = (3, 4, 6)
    net, given = pyramid(channels).eval(), maps(channels, SIZES["halves"][:3])
    net.bottom_up["3"].weights.data[-1] = -1.0  # silences the map below it
    before = net(given)[-1]
    given[0] = torch.zeros_like(given[0])
    assert torch.equal(net(given)[-1], before)
    net.lateral["3"][0].weight.data.zero_()
    assert torch.equal(net(given)[-1], before)
    given[2] = torch.zeros_like(given[2])
    assert not torch.equal(net(given)[-1], before)


def test_maps_grow_by_repetition_or_interpolation():
    channels, sizes = (3, 4), [(8, 8), (2, 2)]
    nearest, bilinear = (pyramid(channels, upsampling=r).eval() for r in ("nearest", "bilinear"))
    grown = {}
    for name, net in (("nearest", nearest), ("bilinear", bilinear)):
        net.top_down["1"].register_forward_hook(
            lambda m, args, out, n=name: grown.update({n: args[1]})
        )
        net(maps(channels, sizes))
    corner = grown["nearest"][:, :, :4, :4]
    assert torch.equal(corner, corner[:, :, :1, :1].expand_as(corner))
    assert not torch.equal(grown["bilinear"][:, :, 0, 1], grown["bilinear"][:, :, 0, 2])


@pytest.mark.parametrize("sizes", [[(8, 8), (4, 4)], [(9, 6), (3, 2)], [(7, 7), (4, 4)]])
def test_a_convolution_before_repetition_is_one_behind_it(sizes):
    net = pyramid((3, 4))
    conv, (like, x) = net.up["1"], maps((3, net.up["1"][0].in_channels), sizes)
    x.requires_grad_()
    got = net._from_above(conv, x, like)
    want = conv(torch.nn.functional.interpolate(x, size=like.shape[-2:], mode="nearest"))
    torch.testing.assert_close(got, want)
    weights = torch.randn_like(want)
    for actual, expected in zip(
        torch.autograd.grad((got * weights).sum(), [x, *conv.parameters()]),
        torch.autograd.grad((want * weights).sum(), [x, *conv.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("levels", [2, 4])
def test_everything_is_trained(levels):
    channels = (3, 4, 6, 5)[:levels]
    net = pyramid(channels)
    last = net(maps(channels, SIZES["halves"][:levels]))[-1]
    (last * torch.rand_like(last)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_levels_are_merged_at_width_and_size_of_the_finest():
    torch.manual_seed(0)
    merged, levels = MergedLevels((4, 6, 5)).eval(), maps((4, 6, 5), ((8, 12), (4, 6), (4, 6)))
    want = levels[0].double()
    for layers, x in zip(merged.convs, levels[1:], strict=True):
        flat = torch.einsum("oc,bchw->bohw", layers[0].weight[..., 0, 0], x) / math.sqrt(1 + 1e-5)
        rows, columns = (places(n, 2 * n) for n in x.shape[-2:])
        want = want + (rows @ flat.clamp(min=0).double() @ columns.T)
    torch.testing.assert_close(merged(levels).double(), want, rtol=1e-5, atol=1e-5)


def places(n, size):
    """The matrix that enlarges n cells to `size` by linear interpolation, pixels as areas."""
    at = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    return torch.tensor(np.stack([np.interp(at, np.arange(n), row) for row in np.eye(n)], 1))


def test_what_cannot_be_built():
    with pytest.raises(ConfigError, match="two taps or more, not 1"):
        pyramid((3,))
    with pytest.raises(ConfigError, match="1 or more"):
        pyramid((3, 4), width=0)
    with pytest.raises(ConfigError, match="1 or more"):
        pyramid((3, 4), depth=0)
