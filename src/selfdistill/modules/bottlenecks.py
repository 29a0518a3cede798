"""Bottlenecks of exits: from a shallow feature to a map with the last feature's channels.

Of clips, whose shapes are (C, T, H, W), they convolve and pool over time as well.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from ..functional.places import pooled_to_size


def exit_grid(shape: Sequence[int], last: Sequence[int]) -> tuple[int, ...]:
    """The map size (h, w) that an exit works at: the last feature's, or 4×4 where that is less.

    MUSE compares features of one size, that of the last. Where the last one has shrunk to
    less than 4 cells a side, a local view would hardly differ from the global one. Of clips it is
    (t, h, w).
    """
    return tuple(min(side, max(end, 4)) for side, end in zip(shape[1:], last[1:], strict=True))


def _conv(
    channels_in: int,
    channels_out: int,
    kernel: int | tuple[int, ...] = 1,
    *,
    sides: int,
    **kw: object,
) -> nn.Sequential:
    """A convolution over so many sides, batch norm and ReLU."""
    convolution, norm = {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}[sides]
    conv = convolution(channels_in, channels_out, kernel, **kw)  # type: ignore[arg-type]
    return nn.Sequential(conv, norm(channels_out), nn.ReLU())


class SlimBottleneck(nn.Module):
    """Pool to the exit's size first, then 1×1, 3×3 and 1×1 convolutions, each with BN and ReLU.

    The order keeps an exit at about 2 % of the network's cost; the middle width is a quarter of
    the output's, as in the bottleneck of BYOT.

    Args:
        shape: (C, H, W) of the feature.
        last: (C, H, W) of the last feature; the output has its channels.
    """

    def __init__(self, shape: Sequence[int], last: Sequence[int]) -> None:
        super().__init__()
        self.grid, middle = exit_grid(shape, last), max(1, last[0] // 4)
        conv = partial(_conv, sides=len(self.grid))
        self.layers = nn.Sequential(
            conv(shape[0], middle, bias=False),
            conv(middle, middle, 3, padding=1, bias=False),
            conv(middle, last[0], bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_last, h, w)."""
        out: Tensor = self.layers(pooled_to_size(x, self.grid))
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

    def __init__(self, shape: Sequence[int], last: Sequence[int]) -> None:
        super().__init__()
        self.grid, middle = exit_grid(shape, last), max(1, last[0] // 4)
        conv = partial(_conv, sides=len(self.grid))
        k = tuple(side // end for side, end in zip(shape[1:], self.grid, strict=True))
        self.layers = nn.Sequential(
            conv(shape[0], middle), conv(middle, middle, k, stride=k), conv(middle, last[0])
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_last, h, w)."""
        # sides that k does not divide leave a cell too many
        return pooled_to_size(self.layers(x), self.grid)


BOTTLENECKS = {"slim": SlimBottleneck, "byot": ByotBottleneck}
"""Bottleneck classes by the name a user gives."""
