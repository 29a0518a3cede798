"""Residual networks for 32×32 images."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import (
    bn_relu,
    conv_bn,
    init_kaiming,
    named_sequential,
)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut: (B, C, H, W) -> (B, width, H / stride, W / stride).

    He et al. 2016, https://arxiv.org/abs/1512.03385, fig. 5 left; where the shape changes, the
    shortcut is a 1×1 convolution with batch norm (option B).
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_bn(in_channels, width, 3, stride), conv_bn(width, width, 3, relu=False)
        )
        self.shortcut = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """ReLU of the sum of both paths."""
        return F.relu(self.residual(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut, with 4 · width channels at the end.

    He et al. 2016, https://arxiv.org/abs/1512.03385, fig. 5 right; the stride is in the 3×3
    convolution, as in the implementations that are in use, and not in the first 1×1 of the paper.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_bn(in_channels, width, 1),
            conv_bn(width, width, 3, stride),
            conv_bn(width, self.expansion * width, 1, relu=False),
        )
        self.shortcut = _shortcut(in_channels, self.expansion * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """ReLU of the sum of both paths."""
        return F.relu(self.residual(x) + self.shortcut(x))


class PreActBlock(nn.Module):
    """Batch norm and ReLU, then two 3×3 convolutions beside a shortcut, and no ReLU at the end.

    He et al. 2016, https://arxiv.org/abs/1603.05027, fig. 1 b, in the form that the public codes of
    several self-distillation papers share, first of CS-KD, https://arxiv.org/abs/2003.13964: each
    shortcut starts behind the first ReLU, also where the shape does not change and the paper hands
    the input on as it is. Where it changes, the shortcut is a 1×1 convolution without batch norm.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm = bn_relu(in_channels)
        self.residual = named_sequential(
            conv1=nn.Conv2d(in_channels, width, 3, stride, 1, bias=False),
            norm=bn_relu(width),
            conv2=nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        changes = stride != 1 or in_channels != width
        self.shortcut = (
            nn.Conv2d(in_channels, width, 1, stride, bias=False) if changes else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both paths, which is normalized by the next block."""
        active = self.norm(x)
        return self.residual(active) + self.shortcut(active)  # type: ignore[no-any-return]


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_bn(in_channels, out_channels, 1, stride, relu=False)


class ResNet(nn.Module):
    """Residual network with a 3×3 stem of stride 1 and no pooling before its stages.

    He et al. 2016, https://arxiv.org/abs/1512.03385, section 4.2 and table 1. Stages `layer1`,
    `layer2`, … halve the image from the second on: 64×32×32, 128×16×16, 256×8×8 and 512×4×4 for a
    32×32 image and `resnet18`. Of a network with three stages the stem is the first cut.

    `resnet8x4` and `resnet32x4` of the CRD benchmark, https://arxiv.org/abs/1910.10699, have stages
    of four times the channels behind a stem of only twice as many. `preact_resnet18` pools the sums
    of its last block as they are: no batch norm and no ReLU come after them. The public codes leave
    its initialization to torch, here it is He's like that of the others.

    Args:
        block: `BasicBlock`, `Bottleneck` or `PreActBlock`.
        depths: blocks of each stage.
        widths: channels of each stage before the block's expansion.
        stem: channels of the stem; without it those of the first stage before the expansion.
        num_classes: outputs.
        in_channels: channels of the images.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck] | type[PreActBlock],
        depths: tuple[int, ...],
        widths: tuple[int, ...] = (64, 128, 256, 512),
        *,
        stem: int | None = None,
        num_classes: int,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        channels, stages = stem or widths[0], [f"layer{i + 1}" for i in range(len(depths))]
        self.stem = conv_bn(in_channels, channels, 3)
        for name, depth, width in zip(stages, depths, widths, strict=True):
            stage = nn.Sequential()
            for i in range(depth):
                stage.append(block(channels, width, 2 if i == 0 and name != "layer1" else 1))
                channels = block.expansion * width
            self.add_module(name, stage)
        self.fc = nn.Linear(channels, num_classes)
        self.stage_ends = tuple(stages)
        self.cuts = ("stem", *stages)[-4:]
        init_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, num_classes)."""
        x = self.stem(x)
        for stage in self.stage_ends:
            x = self.get_submodule(stage)(x)
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


_WIDTHS_16, _WIDTHS_32 = (16, 32, 64, 128), (32, 64, 128, 256)

NETWORKS = {
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(ResNet, Bottleneck, (3, 4, 23, 3)),
    "resnet152": partial(ResNet, Bottleneck, (3, 8, 36, 3)),
    "resnet10_w16": partial(ResNet, BasicBlock, (1, 1, 1, 1), _WIDTHS_16),
    "resnet10_w32": partial(ResNet, BasicBlock, (1, 1, 1, 1), _WIDTHS_32),
    "resnet18_w16": partial(ResNet, BasicBlock, (2, 2, 2, 2), _WIDTHS_16),
    "resnet18_w32": partial(ResNet, BasicBlock, (2, 2, 2, 2), _WIDTHS_32),
    "resnet8x4": partial(ResNet, BasicBlock, (1, 1, 1), (64, 128, 256), stem=32),
    "resnet32x4": partial(ResNet, BasicBlock, (5, 5, 5), (64, 128, 256), stem=32),
    "preact_resnet18": partial(ResNet, PreActBlock, (2, 2, 2, 2)),
} | {
    f"resnet{6 * n + 2}": partial(ResNet, BasicBlock, (n, n, n), (16, 32, 64))
    for n in (1, 2, 3, 5, 7, 9, 18)
}
