"""Small residual networks for clips."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import init_kaiming, named_sequential


class Block3d(nn.Module):
    """Two 3×3×3 convolutions beside a shortcut, strided over time, rows and columns alike.

    (B, C, T, H, W) -> (B, width, T / stride, H / stride, W / stride). As `cifar.resnet.BasicBlock`
    with three sides.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _conv_bn(in_channels, width, 3, (stride,) * 3), nn.ReLU(), _conv_bn(width, width, 3)
        )
        changes = stride != 1 or in_channels != width
        self.shortcut = _conv_bn(in_channels, width, 1, (stride,) * 3) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """ReLU of the sum of both paths."""
        return F.relu(self.residual(x) + self.shortcut(x))


class ResNet3d(nn.Module):
    """Residual network with 3-D convolutions, for clips of 8 … 16 frames of 32 … 112 pixels a side.

    R3D of Tran et al. 2018, https://arxiv.org/abs/1711.11248, made small: a 3×3×3 stem that halves
    rows and columns, and stages of few channels, each from the second on with half the times, rows
    and columns of the one before. `torchvision/r3d_18` is the paper's.

    Args:
        depths: blocks of each stage.
        widths: channels of each stage.
        num_classes: outputs.
        in_channels: channels of the frames.
    """

    cuts = ("layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        widths: tuple[int, int, int, int],
        *,
        num_classes: int,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        channels = widths[0]
        self.stem = nn.Sequential(_conv_bn(in_channels, channels, 3, (1, 2, 2)), nn.ReLU())
        for name, depth, width in zip(self.cuts, depths, widths, strict=True):
            stage = nn.Sequential()
            for i in range(depth):
                stage.append(Block3d(channels, width, 2 if i == 0 and name != "layer1" else 1))
                channels = width
            self.add_module(name, stage)
        self.fc = nn.Linear(channels, num_classes)
        init_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) -> (B, num_classes)."""
        x = self.stem(x)
        for stage in self.cuts:
            x = self.get_submodule(stage)(x)
        return self.fc(x.mean((2, 3, 4)))  # type: ignore[no-any-return]


def _conv_bn(
    in_channels: int, width: int, kernel: int, stride: tuple[int, int, int] = (1, 1, 1)
) -> nn.Sequential:
    conv = nn.Conv3d(in_channels, width, kernel, stride, kernel // 2, bias=False)
    return named_sequential(conv=conv, bn=nn.BatchNorm3d(width))


_ONE, _TWO = (1, 1, 1, 1), (2, 2, 2, 2)

NETWORKS = {
    "r3d10_w8": partial(ResNet3d, _ONE, (8, 16, 32, 64)),
    "r3d10_w16": partial(ResNet3d, _ONE, (16, 32, 64, 128)),
    "r3d18_w16": partial(ResNet3d, _TWO, (16, 32, 64, 128)),
    "r3d18_w32": partial(ResNet3d, _TWO, (32, 64, 128, 256)),
}
"""Constructors by name, as those of `cifar.NETWORKS`."""
