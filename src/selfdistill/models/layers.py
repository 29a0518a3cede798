"""Layers that several families of networks share."""

from collections import OrderedDict

from torch import nn


def named_sequential(**modules: nn.Module) -> nn.Sequential:
    """A sequence of modules, each under its keyword in the state dict."""
    return nn.Sequential(OrderedDict(modules))


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    relu: bool = True,
    bias: bool = False,
    groups: int = 1,
) -> nn.Sequential:
    """Convolution that keeps the size at stride 1 (odd kernel), batch norm and, if asked, ReLU.

    The ReLU never works in place: features are handed out by hooks and must stay what they were.
    """
    conv = nn.Conv2d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=bias
    )
    block = named_sequential(conv=conv, bn=nn.BatchNorm2d(out_channels))
    if relu:
        block.add_module("relu", nn.ReLU())
    return block


def bn_relu(channels: int) -> nn.Sequential:
    """Batch norm and ReLU, for networks that normalize before the convolution."""
    return named_sequential(bn=nn.BatchNorm2d(channels), relu=nn.ReLU())


def init_kaiming(network: nn.Module) -> None:
    """Convolutions normal with variance 2 / fan-out (He et al. 2015), their biases 0.

    Batch norm starts at scale 1 and shift 0 and linear layers keep torch's own initialization.
    He et al. 2015, https://arxiv.org/abs/1502.01852, eq. 14.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
