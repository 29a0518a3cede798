"""YOLOv5 of release 5.0: the anchor-based detector of MUSE's experiments on COCO."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import ConfigError, nearest
from ..modules.anchor_head import AnchorHead, AnchorOutput


class Scale(NamedTuple):
    """How deep and wide a variant is, against the largest but one.

    Attributes:
        depth: of the repeats in each C3.
        width: of the channels.
    """

    depth: float
    width: float


SCALES = {
    "n": Scale(0.33, 0.25),
    "s": Scale(0.33, 0.50),
    "m": Scale(0.67, 0.75),
    "l": Scale(1.0, 1.0),
    "x": Scale(1.33, 1.25),
}
"""The variants; `n` came with release 6.0, here in the form of 5.0 like the others."""


class ConvUnit(nn.Sequential):
    """Convolution that keeps the size at stride 1, batch norm, SiLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU()


class Focus(nn.Module):
    """Each 2×2 pixels become the channels of one cell, then a convolution.

    An odd side is filled up by a line of zeros.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvUnit(4 * in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H / 2, W / 2)."""
        x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
        out: Tensor = self.conv(F.pixel_unshuffle(x, 2))
        return out


class Bottleneck(nn.Module):
    """A 1×1 and a 3×3 convolution, added to their input where `shortcut` is set."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.reduce = ConvUnit(channels, channels, 1)
        self.conv = ConvUnit(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        out: Tensor = self.conv(self.reduce(x))
        return x + out if self.shortcut else out


class C3(nn.Module):
    """A cross-stage partial block of three convolutions.

    Half of the channels pass by the bottlenecks. Wang et al. 2020,
    https://arxiv.org/abs/1911.11929.
    """

    def __init__(
        self, in_channels: int, out_channels: int, repeats: int, shortcut: bool = True
    ) -> None:
        super().__init__()
        half = out_channels // 2
        self.main = ConvUnit(in_channels, half, 1)
        self.side = ConvUnit(in_channels, half, 1)
        self.blocks = nn.Sequential(*(Bottleneck(half, shortcut) for _ in range(repeats)))
        self.merge = ConvUnit(2 * half, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H, W)."""
        out: Tensor = self.merge(torch.cat([self.blocks(self.main(x)), self.side(x)], 1))
        return out


class SPP(nn.Module):
    """Spatial pyramid pooling: the map beside its maxima over 5×5, 9×9 and 13×13.

    He et al. 2014, https://arxiv.org/abs/1406.4729, in the form of YOLOv3-SPP.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = ConvUnit(in_channels, in_channels // 2, 1)
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))
        self.merge = ConvUnit(4 * (in_channels // 2), out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H, W)."""
        x = self.reduce(x)
        out: Tensor = self.merge(torch.cat([x, *(pool(x) for pool in self.pools)], 1))
        return out


class Neck(nn.Module):
    """Path aggregation: from coarse to fine, and back.

    Liu et al. 2018, https://arxiv.org/abs/1803.01534, on the maps at 1/8, 1/16 and 1/32.

    Args:
        channels: of the three maps, finest first; those that come out have the same.
        repeats: of the bottlenecks in each C3.
    """

    def __init__(self, channels: tuple[int, int, int], repeats: int) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.reduce_coarse = ConvUnit(coarse, middle, 1)
        self.up_middle = C3(2 * middle, middle, repeats, shortcut=False)
        self.reduce_middle = ConvUnit(middle, fine, 1)
        self.up_fine = C3(2 * fine, fine, repeats, shortcut=False)
        self.down_fine = ConvUnit(fine, fine, 3, 2)
        self.down_middle = C3(2 * fine, middle, repeats, shortcut=False)
        self.down_coarse = ConvUnit(middle, middle, 3, 2)
        self.last = C3(2 * middle, coarse, repeats, shortcut=False)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> list[Tensor]:
        """Three maps to three maps."""
        top = self.reduce_coarse(coarse)
        between = self.reduce_middle(self.up_middle(torch.cat([_like(top, middle), middle], 1)))
        small = self.up_fine(torch.cat([_like(between, fine), fine], 1))
        medium = self.down_middle(torch.cat([self.down_fine(small), between], 1))
        large = self.last(torch.cat([self.down_coarse(medium), top], 1))
        return [small, medium, large]


def _like(x: Tensor, other: Tensor) -> Tensor:
    """A map at the size of a finer one."""
    return F.interpolate(x, size=other.shape[-2:], mode="nearest")


class YOLOv5(nn.Module):
    """Backbone of CSP blocks, SPP, a path aggregation neck and an anchor head.

    Jocher et al., YOLOv5 5.0 (2021), https://doi.org/10.5281/zenodo.4679653, written from its
    description. The backbone is [Focus, Conv, C3, Conv, C3, Conv, C3, Conv, SPP, C3]; MUSE cuts it
    behind the seventh and the last module.

    Args:
        scale: depth and width.
        num_classes: K.
        in_channels: of the images.
        gamma: of the head's focal terms.
    """

    cuts = ("backbone.6", "backbone.9")

    def __init__(
        self, scale: Scale, num_classes: int, in_channels: int = 3, *, gamma: float = 1.5
    ) -> None:
        super().__init__()
        stem, *widths = (8 * -(-int(c * scale.width) // 8) for c in (64, 128, 256, 512, 1024))
        few, many = (max(round(n * scale.depth), 1) for n in (3, 9))
        layers: list[nn.Module] = [Focus(in_channels, stem)]
        for old, new, repeats in zip((stem, *widths), widths, (few, many, many, 0), strict=False):
            layers.append(ConvUnit(old, new, 3, 2))
            layers.append(C3(new, new, repeats) if repeats else SPP(new, new))
        layers.append(C3(widths[-1], widths[-1], few, shortcut=False))
        self.backbone = nn.Sequential(*layers)
        self.neck = Neck((widths[1], widths[2], widths[3]), few)
        self.head = AnchorHead(widths[1:], num_classes, gamma=gamma)

    def forward(self, x: Tensor) -> AnchorOutput:
        """(B, C, H, W) to the raw predictions on three grids."""
        maps = [x := layer(x) for layer in self.backbone]
        out: AnchorOutput = self.head(self.neck(maps[4], maps[6], maps[9]))
        return out


def build_yolov5(name: str, num_classes: int, in_channels: int, pretrained: bool) -> nn.Module:
    """`yolov5/n`, `s`, `m`, `l` or `x`.

    Raises:
        ConfigError: no such variant, or pretrained weights, of which there are none here.
    """
    if name not in SCALES:
        raise ConfigError(f"there is no network 'yolov5/{name}'{nearest(name, SCALES)}")
    if pretrained:
        raise ConfigError(
            f"no pretrained weights exist here for yolov5/{name}; give a weights file, or take a "
            "torchvision/ detector, whose backbone has them"
        )
    return YOLOv5(SCALES[name], num_classes, in_channels)
