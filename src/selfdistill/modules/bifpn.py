"""Bidirectional feature pyramid (BiFPN): top-down, then bottom-up fusion of features."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import ConfigError


class BiFPN(nn.Module):
    r"""One layer of a bidirectional feature pyramid, whose levels may differ in width.

    BiFPN is Tan et al. 2020, https://arxiv.org/abs/1911.09070, Sec. 3; its form for classification
    is the BiFPNc of FRSKD, https://arxiv.org/abs/2103.08273, laid out as in the authors' code. With
    :math:`F_i` the feature of level i, from 1, the shallowest, to n,

    .. math::
        P_n = a_n(F_n), \quad P_i = fuse(a_i(F_i), u_i(up\, P_{i+1})) \\
        T_1 = P_1, \quad T_i = fuse(b_i(F_i), P_i, d_i(down\, T_{i-1})), \quad
        T_n = fuse(b_n(F_n), d_n(down\, T_{n-1}))

    where a, b, u and d are 1×1 convolutions (BN, ReLU) to the width of their level, *fuse* is a
    `Fusion` of its own each time, *up* resizes to the size of the level and *down* is
    `pooled_down`. Parameters carry the number of their level, ``top_down.1.weights``.

    Args:
        channels: of each level's feature, shallowest first; two levels or more of any sizes.
        widths: of each refined map.
        depth: separable convolutions in each fusion, 1 or more.
        upsampling: how a map is made larger, "nearest" or "bilinear".

    Raises:
        ConfigError: fewer than two levels, or a width or depth below 1.
    """

    def __init__(
        self, channels: Sequence[int], widths: Sequence[int], *, depth: int, upsampling: str
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ConfigError(
                f"a feature pyramid needs two taps or more, not {len(channels)}; "
                "`selfdistill taps MODEL` lists the modules to tap"
            )
        if depth < 1 or min(widths) < 1:
            raise ConfigError("a feature pyramid's width and depth are 1 or more")
        self.upsampling, self.levels = upsampling, range(1, len(channels) + 1)
        self.lateral, self.up, self.top_down = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.again, self.down, self.bottom_up = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        last = len(channels)
        for i, c, width in zip(self.levels, channels, widths, strict=True):
            level = str(i)
            self.lateral[level] = _conv(c, width)
            if i < last:
                self.up[level] = _conv(widths[i], width)
                self.top_down[level] = Fusion(2, width, depth)
            if i > 1:
                self.again[level] = _conv(c, width)
                self.down[level] = _conv(widths[i - 2], width)
                self.bottom_up[level] = Fusion(3 if i < last else 2, width, depth)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[(B, channels_i, H_i, W_i)] -> [(B, widths_i, H_i, W_i)], none of it negative."""
        # convolutions of single cells and of single channels: a CPU does both, and the pooling,
        # much faster where a cell's channels lie side by side
        compact = [x.contiguous(memory_format=torch.channels_last) for x in features]
        inputs = dict(zip(self.levels, compact, strict=True))
        *shallow, last = self.levels
        coarse = {last: self.lateral[str(last)](inputs[last])}  # P
        for i in reversed(shallow):
            level, x = str(i), inputs[i]
            above = self._from_above(self.up[level], coarse[i + 1], x)
            coarse[i] = self.top_down[level](self.lateral[level](x), above)
        refined = {1: coarse[1]}  # T
        for i in self.levels[1:]:
            level, x = str(i), inputs[i]
            middle = [coarse[i]] if i < last else []
            below = self.down[level](pooled_down(refined[i - 1], x))
            refined[i] = self.bottom_up[level](self.again[level](x), *middle, below)
        return list(refined.values())

    def _from_above(self, conv: nn.Module, x: Tensor, like: Tensor) -> Tensor:
        """`conv` of the map that is made as large as `like`."""
        sides = zip(like.shape[-2:], x.shape[-2:], strict=True)
        if self.upsampling == "nearest" and all(large % small == 0 for large, small in sides):
            # each cell is repeated equally often: convolution, batch statistics and ReLU come to
            # the same before it, on a quarter of the cells
            return self._upsampled(conv(x), like)
        out: Tensor = conv(self._upsampled(x, like))
        return out

    def _upsampled(self, x: Tensor, like: Tensor) -> Tensor:
        size = like.shape[-2:]
        return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode=self.upsampling)


class MergedLevels(nn.Module):
    """The sum of all levels, at the finest one's width and size.

    Each deeper level goes through a 1×1 convolution (BN, ReLU) and is enlarged by bilinear
    interpolation; the finest is taken as it is.

    Args:
        widths: of the levels' maps, finest first.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        finest, *others = widths
        self.convs = nn.ModuleList(_conv(width, finest) for width in others)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[(B, widths_i, H_i, W_i)] -> (B, widths_1, H_1, W_1)."""
        total, *others = maps
        size = total.shape[-2:]
        for conv, x in zip(self.convs, others, strict=True):
            total = total + F.interpolate(conv(x), size=size, mode="bilinear", align_corners=False)
        return total


class Fusion(nn.Module):
    r"""A learned weighted mean of maps of one shape, then separable convolutions with BN and ReLU.

    The weights are the fast normalized fusion of Tan et al. 2020, https://arxiv.org/abs/1911.09070,
    Sec. 3.3: :math:`\sum_j w_j x_j / (\epsilon + \sum_j w_j)`, where a ReLU keeps :math:`w \ge 0`.
    They start as ones; :math:`\epsilon` is 1e-6 as in FRSKD's code.

    Args:
        inputs: how many maps there are.
        width: their channels.
        depth: how many times a 3×3 convolution of each channel, a 1×1 convolution, BN and ReLU.
    """

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.refine = nn.Sequential(*(_separable(width) for _ in range(depth)))

    def mean(self, *maps: Tensor) -> Tensor:
        """As many (B, width, H, W) as there are inputs -> their weighted mean."""
        weights = self.weights.relu()
        weights = weights / (weights.sum() + 1e-6)
        first, *others = (w * x for w, x in zip(weights.unbind(), maps, strict=True))
        return sum(others, start=first)

    def forward(self, *maps: Tensor) -> Tensor:
        """The weighted mean, refined: (B, width, H, W), not negative."""
        out: Tensor = self.refine(self.mean(*maps))
        return out


def pooled_down(x: Tensor, like: Tensor) -> Tensor:
    """The maxima of a map on the grid of another one; the map itself where the sizes agree.

    To half the size, rounded up, with windows of 3×3 every 2 cells, placed as by TensorFlow's
    "same" padding: what is missing is shared by both sides, and the end gets the odd one. To any
    other size with adaptive windows.
    """
    size, (h, w) = like.shape[-2:], x.shape[-2:]
    if size == (h, w):
        return x
    if size == ((h + 1) // 2, (w + 1) // 2):
        # an odd side lacks one cell at both ends, an even one a single cell at the end
        return F.max_pool2d(x, 3, 2, padding=(h % 2, w % 2), ceil_mode=True)
    return F.adaptive_max_pool2d(x, size)


def _conv(channels: int, width: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def _separable(width: int) -> nn.Sequential:
    depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
    return nn.Sequential(depthwise, *_conv(width, width))
