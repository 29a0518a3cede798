"""Layers in simulated int8 against numpy, onnxruntime's scales and arithmetic in integers."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.quant_utils import compute_scale_zp
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from selfdistill.core import Frozen, load_tensors
from selfdistill.core.fake_quantization import (
    FakeQuantized,
    add_fake_quantization,
    fake_quantized,
    quantized_weight,
    remove_fake_quantization,
    without_ranges,
)
from selfdistill.engine.optimizer import EMA


def quantized(layer, low=None, high=None):
    add_fake_quantization(layer)
    if low is not None:
        layer.input_range.copy_(torch.tensor([low, high]))
    return layer


def numpy_rounded(x, low, high, least, most, symmetric=False):
    """By onnxruntime's scale and zero point, and the formulas of QuantizeLinear and its inverse."""
    limits = np.float32(low), np.float32(high)
    zero, scale = compute_scale_zp(*limits, np.int32(least), np.int32(most), symmetric)
    return (np.clip(np.round(x / scale) + zero, least, most) - zero) * scale


def halfway(steps):
    """Whether rounding errors decide which of two steps a value goes to."""
    return np.abs(steps % 1 - 0.5) < 1e-3


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=16), min_size=1, max_size=20),
    st.floats(-4, 0, width=16), st.floats(0.125, 4, width=16),
)  # fmt: skip
def test_inputs_round_as_onnxruntime_rounds_them(values, low, high):
    layer = quantized(nn.Linear(len(values), 1), low, high).eval()
    x = torch.tensor(values)
    expected = numpy_rounded(x.numpy(), low, high, 0, 255)
    step = (high - low) / 255
    assume(not halfway(-low / step))
    error = np.abs(layer.quantized_input(x).numpy() - expected)
    halves = halfway(x.numpy() / step)
    assert (error[~halves] < 1e-5).all()
    assert (error < 1.001 * step).all()


def test_weights_round_as_onnxruntime_rounds_them():
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[2] *= 100
    weight[4] = 0
    expected = [numpy_rounded(w, w.min(), w.max(), -64, 64, True) for w in weight.numpy()]
    assert quantized_weight(weight).numpy() == pytest.approx(np.stack(expected), rel=1e-5)


def test_a_known_row():
    weight = torch.tensor([[1.0, -0.5, 0.26, 0.2421875]])  # of 64 steps to 1: 64, −32, 16.64, 15.5
    assert (64 * quantized_weight(weight)).tolist() == [[64.0, -32.0, 17.0, 16.0]]
    layer = quantized(nn.Linear(4, 1), -1.0, 4.1).eval()  # steps of 0.02
    rounded = layer.quantized_input(torch.tensor([-2.0, 0.0, 0.031, 9.0]))
    torch.testing.assert_close(rounded, torch.tensor([-1.0, 0.0, 0.04, 4.1]))


LAYERS = {
    "convolution": (nn.Conv2d(4, 6, 3, 2, 1), (5, 4, 8, 8)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="circular"), (5, 4, 8, 8)),
    "clips": (nn.Conv3d(2, 3, 3, padding=1, bias=False), (2, 2, 4, 6, 6)),
    "linear": (nn.Linear(7, 5), (3, 2, 7)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_output_is_that_of_integer_arithmetic(name):
    plain, shape = LAYERS[name]
    torch.manual_seed(0)
    x = torch.randn(shape)
    layer = quantized(copy.deepcopy(plain), -3.0, 2.5).eval()
    scale, per_channel = 5.5 / 255, plain.weight.detach().flatten(1).abs().amax(1) / 64
    zero_point = round(3.0 / scale)
    features = (x / scale).round().add(zero_point).clamp(0, 255).long()
    sides = [-1] + [1] * (plain.weight.dim() - 1)
    weights = (plain.weight / per_channel.view(sides)).round().long()
    assert weights.abs().max() == 64
    integer = copy.deepcopy(plain).double()
    integer.weight.data.copy_(weights.double())
    integer.bias = None
    sums = integer((features - zero_point).double())
    channels = [-1] if name == "linear" else [1, -1] + [1] * (len(shape) - 2)
    expected = sums * (scale * per_channel).double().view(channels)
    if plain.bias is not None:
        expected = expected + plain.bias.double().view(channels)
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_a_folded_batch_norm_rounds_the_same_weights():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8).eval()
    for tensor in (norm.weight.data, norm.running_mean):
        tensor.normal_()  # also negative
    norm.running_var.uniform_(0.1, 4)
    folded = fuse_conv_bn_eval(copy.deepcopy(conv).eval(), norm)
    rounded = copy.deepcopy(conv).eval()
    rounded.weight.data.copy_(quantized_weight(conv.weight))
    expected = fuse_conv_bn_eval(rounded, norm).weight
    torch.testing.assert_close(quantized_weight(folded.weight), expected, rtol=1e-5, atol=1e-6)


def test_ranges_are_of_the_first_batch_and_then_move():
    layer = quantized(nn.Linear(2, 1))
    layer(torch.tensor([[0.5, 2.0]]))
    assert layer.input_range.tolist() == [0.0, 2.0]  # zero is always in it
    layer(torch.tensor([[-1.0, 3.0]]))
    torch.testing.assert_close(layer.input_range, torch.tensor([-0.01, 2.01]))
    layer.eval()
    layer(torch.tensor([[-50.0, 50.0]]))
    torch.testing.assert_close(layer.input_range, torch.tensor([-0.01, 2.01]))


def test_inputs_are_not_rounded_before_a_range_is_known():
    layer, x = quantized(nn.Linear(3, 2)).eval(), torch.randn(4, 3)
    assert torch.equal(layer(x), F.linear(x, quantized_weight(layer.weight), layer.bias))


def test_gradients_pass_straight_where_nothing_is_cut_off():
    layer = quantized(nn.Linear(3, 1, bias=False), -1.0, 1.0).eval()
    x = torch.tensor([[-3.0, 0.2, 3.0]], requires_grad=True)
    layer(x).sum().backward()
    weight = quantized_weight(layer.weight).detach()
    assert torch.equal(x.grad, weight * torch.tensor([[0.0, 1.0, 0.0]]))
    torch.testing.assert_close(layer.weight.grad, layer.quantized_input(x).detach())


class Network(nn.Module):
    """With a layer that is used twice, one that attention uses, and one of a subclass."""

    def __init__(self):
        super().__init__()
        self.conv, self.again = nn.Conv2d(2, 2, 3, padding=1), nn.Identity()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)
        self.own = type("Own", (nn.Linear,), {})(2, 2)
        self.teacher = Frozen(nn.Linear(2, 2))
        self.fc = nn.Linear(2, 3)

    def forward(self, x):
        x = self.conv(self.conv(x)).flatten(2).transpose(1, 2)
        return self.fc(self.own(self.attention(x, x, x)[0]).mean(1))


def test_layers_stay_the_objects_that_they_are():
    torch.manual_seed(0)
    network, x = Network().eval(), torch.randn(2, 2, 4, 4)
    before, plain, state = dict(network.named_modules()), network(x), set(network.state_dict())
    add_fake_quantization(network)
    add_fake_quantization(network)  # once is enough
    assert list(fake_quantized(network)) == ["conv", "fc"]
    assert dict(network.named_modules()) == before
    assert set(network.state_dict()) - state == {"conv.input_range", "fc.input_range"}
    assert set(without_ranges(network.state_dict())) == state
    assert isinstance(network.fc, nn.Linear)
    network.train()(x)
    assert not torch.equal(network.eval()(x), plain)
    copied = copy.deepcopy(network)
    assert torch.equal(copied(x), network(x))
    remove_fake_quantization(network)
    assert torch.equal(network(x), plain)
    assert set(network.state_dict()) == state
    assert not [m for m in network.modules() if isinstance(m, FakeQuantized)]
    assert type(network.fc) is nn.Linear
    assert vars(network.fc).keys() == vars(nn.Linear(2, 3)).keys()
    assert list(fake_quantized(copied)) == ["conv", "fc"]


@pytest.mark.slow  # imports timm
def test_the_layers_of_timm():
    import timm

    network = timm.create_model("tf_mobilenetv3_small_minimal_100", num_classes=4).eval()
    expected = {n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    x = torch.randn(2, 3, 33, 35, generator=torch.Generator().manual_seed(0))
    add_fake_quantization(network)
    assert fake_quantized(network).keys() == expected
    # weights whose rounding changes nothing, and inputs that are not rounded: the plain network
    for layer in fake_quantized(network).values():
        layer.weight.data.copy_(quantized_weight(layer.weight))
    simulated = network(x)
    remove_fake_quantization(network)
    torch.testing.assert_close(simulated, network(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_precisions_round_in_float32(dtype):
    torch.manual_seed(0)
    layer = quantized(nn.Linear(8, 4))
    x = torch.randn(5, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        outputs = layer(x.to(dtype))
    assert outputs.dtype == dtype
    assert layer.input_range.dtype == torch.float32
    outputs.float().square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert layer.weight.grad.abs().sum() > 0
    torch.testing.assert_close(outputs.float(), layer.eval()(x.to(dtype)), rtol=0.05, atol=0.05)


def test_an_average_of_the_weights_has_the_ranges_as_they_are():
    layer = quantized(nn.Linear(2, 1))
    ema = EMA(layer.state_dict(), 0.9)
    weight = layer.weight.detach().clone()
    layer(torch.tensor([[1.0, 2.0]]))
    layer.weight.data.add_(1)
    ema.update(layer.state_dict(), step=1000)
    assert ema.state["input_range"].tolist() == [0.0, 2.0]
    torch.testing.assert_close(ema.state["weight"], weight + 0.1)
    load_tensors(layer, ema.state)


@pytest.mark.slow
def test_a_compiled_layer_moves_its_range_in_one_graph():
    torch.manual_seed(0)
    layer = quantized(nn.Conv2d(2, 3, 3))
    other = copy.deepcopy(layer)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for _ in range(2):
        x = torch.randn(2, 2, 6, 6)
        assert torch.equal(compiled(x), other(x))
    assert torch.equal(layer.input_range, other.input_range)
