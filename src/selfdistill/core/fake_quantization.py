"""Layers that compute in float32 what they will in int8: quantization-aware training."""

from collections.abc import Container, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from .frozen import Frozen

RANGE = "input_range"
"""Name of the buffer that a layer keeps the range of its inputs in."""
_MOMENTUM = 0.01  # as torch's own moving averages of ranges have it
_MAX_FEATURE, _MAX_WEIGHT = 255, 64  # of 8 bits without sign, and of 7 with sign
_SMALLEST = torch.finfo(torch.float32).tiny


class FakeQuantized(nn.Module):
    """A layer whose input and weight are rounded to what int8 can hold; gradients pass straight.

    The numbers are those of `export --format onnx-int8`: weights have a scale an output channel and
    seven bits, inputs a scale a tensor, a zero point, and eight bits. Gradients are zero where a
    value is cut off (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, sections 2 and 3). What
    the exported file rounds besides, and this layer does not: features that sums, products and
    activations read, and biases, which have 32 bits there.

    A BatchNorm behind a convolution is folded into its weights in the file. That scales whole
    output channels, and with them the scales of this layer, so the folded weights round as these
    do, up to floating point: nothing has to be folded in training.

    Attributes:
        input_range: (2,) least and largest value of the inputs, zero included: of the first batch,
            then moving averages; it stays as it is in evaluation mode. Zeros before any batch,
            when inputs are not rounded.
        plain_type: of the layer in float32.
    """

    weight: Tensor
    input_range: Tensor
    plain_type: type[nn.Module]

    def quantized_input(self, x: Tensor) -> Tensor:
        """The input as int8 has it, in float32."""
        x = x.float()
        if self.training:
            self._observe(x.detach())
        low, high = self.input_range.unbind()
        scale = ((high - low) / _MAX_FEATURE).clamp_min(_SMALLEST)
        zero_point = (-low / scale).round().clamp(0, _MAX_FEATURE).to(torch.int32)
        rounded = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, _MAX_FEATURE)
        if self.training:
            return rounded
        return torch.where(high > low, rounded, x)

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        """Move the range towards that of a batch."""
        # Not `torch.fused_moving_avg_obs_fake_quant`: its ranges begin at infinity, which nothing
        # may be saved with or averaged, and scale and zero point are a state beside them.
        low, high = torch.aminmax(x)
        batch = torch.stack([low.clamp_max(0), high.clamp_min(0)])
        weight = torch.where(self.input_range.any(), _MOMENTUM, 1.0)
        self.input_range.lerp_(batch, weight)


class FakeQuantizedConv2d(FakeQuantized, nn.Conv2d):
    """`nn.Conv2d` in simulated int8."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight = self.quantized_input(input), quantized_weight(weight)
        outputs: Tensor = nn.Conv2d._conv_forward(self, x, weight, bias)
        return outputs


class FakeQuantizedConv2dSame(FakeQuantizedConv2d):
    """timm's `Conv2dSame`, whose padding depends on the size of its input, in simulated int8."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        from timm.layers.padding import pad_same  # is imported already, by the network

        sizes: Any = self.kernel_size, self.stride, self.dilation
        x = self.quantized_input(pad_same(input, *sizes))
        weight, sides = quantized_weight(self.weight), (self.dilation, self.groups)
        return nn.functional.conv2d(x, weight, self.bias, self.stride, 0, *sides)


class FakeQuantizedConv3d(FakeQuantized, nn.Conv3d):
    """`nn.Conv3d` in simulated int8."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight = self.quantized_input(input), quantized_weight(weight)
        outputs: Tensor = nn.Conv3d._conv_forward(self, x, weight, bias)
        return outputs


class FakeQuantizedLinear(FakeQuantized, nn.Linear):
    """`nn.Linear` in simulated int8."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        weight = quantized_weight(self.weight)
        return nn.functional.linear(self.quantized_input(input), weight, self.bias)


# Exactly these types: another subclass may do more with its weight, or leave it to others. timm is
# slow to import, so its types are known by their names.
_QUANTIZED: dict[str, type[FakeQuantized]] = {
    "torch.nn.modules.conv.Conv2d": FakeQuantizedConv2d,
    "torch.nn.modules.conv.Conv3d": FakeQuantizedConv3d,
    "torch.nn.modules.linear.Linear": FakeQuantizedLinear,
    "timm.layers.linear.Linear": FakeQuantizedLinear,
    "timm.layers.conv2d_same.Conv2dSame": FakeQuantizedConv2dSame,
}


def quantized_weight(weight: Tensor) -> Tensor:
    """A weight (out, ...) as int8 has it, in float32, with a scale an output channel."""
    scale = weight.detach().abs().flatten(1).amax(1).div(_MAX_WEIGHT).clamp_min(_SMALLEST)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -_MAX_WEIGHT, _MAX_WEIGHT)


def add_fake_quantization(network: nn.Module) -> None:
    """Make convolutions and linear layers compute in simulated int8, in place.

    A layer stays the same object with the same parameters under the same names, so that hooks and
    all that shares it go on; its state gets `input_range`. `Frozen` parts are left alone.
    """
    for module in _trained_modules(network):
        plain, layer = type(module), cast(Any, module)  # whose class mypy takes for granted
        if quantized := _QUANTIZED.get(f"{plain.__module__}.{plain.__name__}"):
            layer.plain_type, layer.__class__ = plain, quantized
            layer.register_buffer(RANGE, torch.zeros(2, device=layer.weight.device))


def remove_fake_quantization(network: nn.Module, kept: Container[nn.Module] = frozenset()) -> None:
    """Make plain layers of those in simulated int8, but for those that are kept, in place."""
    layers: dict[str, Any] = {n: m for n, m in fake_quantized(network).items() if m not in kept}
    for layer in layers.values():
        layer.__class__ = layer.plain_type
        del layer._buffers[RANGE], layer.plain_type


def fake_quantized(network: nn.Module) -> dict[str, FakeQuantized]:
    """The layers in simulated int8 by their names."""
    return {name: m for name, m in network.named_modules() if isinstance(m, FakeQuantized)}


def is_range(name: str) -> bool:
    """Whether a tensor of a state is the range of a layer's inputs, by its name."""
    return name.rpartition(".")[2] == RANGE


def without_ranges(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of the same network with plain layers."""
    return {name: tensor for name, tensor in state.items() if not is_range(name)}


def _trained_modules(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, Frozen):
        return
    yield module
    for child in module.children():
        yield from _trained_modules(child)
