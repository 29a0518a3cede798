"""Bottlenecks of exits: from a shallow feature to a map with the last feature's channels."""

import torch.nn.functional as F
from torch import Tensor, nn


def exit_grid(shape: tuple[int, ...], last: tuple[int, ...]) -> tuple[int, int]:
    """The map size (h, w) that an exit works at: the last feature's, or 4×4 where that is less.

    MUSE compares features of one size, that of the last. Where the last one has shrunk to
    less than 4 cells a side, a local view would hardly differ from the global one.
    """
    h, w = (min(side, max(end, 4)) for side, end in zip(shape[-2:], last[-2:], strict=True))
    return h, w


def _conv(
    channels_in: int, channels_out: int, kernel: int | tuple[int, int] = 1, **kw: object
) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, kernel, **kw)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU())


class SlimBottleneck(nn.Module):
    """Pool to the exit's size first, then 1×1, 3×3 and 1×1 convolutions, each with BN and ReLU.

    The order keeps an exit at about 2 % of the network's cost; the middle width is a quarter of
    the output's, as in the bottleneck of BYOT.

    Args:
        shape: (C, H, W) of the feature.
        last: (C, H, W) of the last feature; the output has its channels.
    """

    def __init__(self, shape: tuple[int, int, int], last: tuple[int, int, int]) -> None:
        super().__init__()
        self.grid, middle = exit_grid(shape, last), max(1, last[0] // 4)
        self.layers = nn.Sequential(
            _conv(shape[0], middle, bias=False),
            _conv(middle, middle, 3, padding=1, bias=False),
            _conv(middle, last[0], bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_last, h, w)."""
        if x.shape[-2:] != self.grid:
            x = F.adaptive_avg_pool2d(x, self.grid)
        out: Tensor = self.layers(x)
        return out


class ByotBottleneck(nn.Module):
    """1×1, k×k with stride k, and 1×1 convolutions, each with bias, BN and ReLU.

    The bottleneck of the public BYOT port whose training recipe MUSE shares: k brings the map to
    the size of the last feature in one convolution. ResNet-18 at 32×32: 1,124,608, 346,368 and
    166,144 parameters at stages 1, 2 and 3.

    Args:
        shape: (C, H, W) of the feature.
        last: (C, H, W) of the last feature; the output has its channels.
    """

    def __init__(self, shape: tuple[int, int, int], last: tuple[int, int, int]) -> None:
        super().__init__()
        self.grid, middle = exit_grid(shape, last), max(1, last[0] // 4)
        k = (shape[1] // self.grid[0], shape[2] // self.grid[1])
        self.layers = nn.Sequential(
            _conv(shape[0], middle), _conv(middle, middle, k, stride=k), _conv(middle, last[0])
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_last, h, w)."""
        x = self.layers(x)  # sides that k does not divide leave a cell too many
        return x if x.shape[-2:] == self.grid else F.adaptive_avg_pool2d(x, self.grid)


BOTTLENECKS = {"slim": SlimBottleneck, "byot": ByotBottleneck}
"""Bottleneck classes by the name a user gives."""
