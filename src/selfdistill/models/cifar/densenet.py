"""Densely connected networks for 32×32 images."""

from functools import partial

import torch
from torch import Tensor, nn

from ..layers import bn_relu, init_kaiming, named_sequential


class DenseLayer(nn.Module):
    """Append `growth` new channels to the input: (B, C, H, W) -> (B, C + growth, H, W).

    Huang et al. 2017, https://arxiv.org/abs/1608.06993, section 3, DenseNet-B: a 1×1 convolution
    to 4 · growth channels precedes the 3×3 one.
    """

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.squeeze = named_sequential(
            norm=bn_relu(in_channels), conv=nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        )
        self.grow = named_sequential(
            norm=bn_relu(4 * growth),
            conv=nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The input and what was made of it."""
        return torch.cat([x, self.grow(self.squeeze(x))], 1)


def transition(in_channels: int, out_channels: int) -> nn.Sequential:
    """Fewer channels at half the size, between two dense blocks."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return named_sequential(norm=bn_relu(in_channels), conv=conv, pool=nn.AvgPool2d(2))


class DenseNet(nn.Module):
    """Dense blocks with transitions between them, after a 3×3 stem of stride 1.

    Huang et al. 2017, https://arxiv.org/abs/1608.06993, DenseNet-BC of table 1 without its first
    two halvings. The cuts are the dense blocks before their transitions (256×32×32, 512×16×16 and
    1024×8×8 for `densenet121` and a 32×32 image) and the last block's batch norm and ReLU
    (1024×4×4).

    Args:
        depths: layers of each of the four dense blocks.
        growth: channels that a layer adds; the stem has twice as many.
        num_classes: outputs.
        in_channels: channels of the images.
    """

    cuts = ("features.block1", "features.block2", "features.block3", "features.norm")

    def __init__(
        self, depths: tuple[int, ...], growth: int = 32, *, num_classes: int, in_channels: int = 3
    ) -> None:
        super().__init__()
        channels = 2 * growth
        self.features = named_sequential(
            stem=nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        )
        for i, depth in enumerate(depths, start=1):
            layers = [DenseLayer(channels + j * growth, growth) for j in range(depth)]
            self.features.add_module(f"block{i}", nn.Sequential(*layers))
            channels += depth * growth
            if i < len(depths):
                self.features.add_module(f"transition{i}", transition(channels, channels // 2))
                channels //= 2
        self.features.add_module("norm", bn_relu(channels))
        self.fc = nn.Linear(channels, num_classes)
        init_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, num_classes)."""
        return self.fc(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


NETWORKS = {"densenet121": partial(DenseNet, (6, 12, 24, 16))}
