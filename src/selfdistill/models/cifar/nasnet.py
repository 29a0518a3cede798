"""NASNet-A for 32×32 images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import conv_bn, named_sequential


class Separable(nn.Module):
    """Twice ReLU, depthwise convolution, 1×1 convolution and batch norm; the first may stride."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.first = self._half(channels, kernel, stride)
        self.second = self._half(channels, kernel, 1)

    @staticmethod
    def _half(channels: int, kernel: int, stride: int) -> nn.Sequential:
        return named_sequential(
            relu=nn.ReLU(),
            depthwise=nn.Conv2d(
                channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False
            ),
            pointwise=nn.Conv2d(channels, channels, 1, bias=False),
            bn=nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / stride, W / stride)."""
        return self.second(self.first(x))  # type: ignore[no-any-return]


class Halve(nn.Module):
    """Half the size: one 1×1 convolution sees the even pixels of each row and column, one the odd.

    The "factorised reduction" of Zoph et al. 2018, https://arxiv.org/abs/1707.07012, appendix A.4;
    each convolution makes half of the channels.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(in_channels, out_channels // 2, 1, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, ⌈H / 2⌉, ⌈W / 2⌉)."""
        x = F.relu(x)
        shifted = F.pad(x, (-1, 1, -1, 1))  # one pixel up and left
        return self.bn(  # type: ignore[no-any-return]
            torch.cat([self.even(x[..., ::2, ::2]), self.odd(shifted[..., ::2, ::2])], 1)
        )


def fit(in_channels: int, out_channels: int) -> nn.Sequential:
    """ReLU, 1×1 convolution and batch norm: the number of channels that a cell works with."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return named_sequential(relu=nn.ReLU(), conv=conv, bn=nn.BatchNorm2d(out_channels))


def fit_previous(in_channels: int, out_channels: int, halve: bool) -> nn.Module:
    """The same for the output of the cell before the last, twice as large after a reduction."""
    if halve:
        return Halve(in_channels, out_channels)
    return fit(in_channels, out_channels) if in_channels != out_channels else nn.Identity()


class NormalCell(nn.Module):
    """Five sums of two operations each, and the fitted earlier input: 6 · width channels.

    Zoph et al. 2018, https://arxiv.org/abs/1707.07012, fig. 4 left. The third sum is that of the
    figure and of the authors' code; a port in wide use adds the last output twice there.

    Args:
        last: channels of the last cell's output.
        previous: channels of the output of the cell before it.
        width: channels of each sum.
        halve: whether the last cell halved the image, so that the output before it is larger.
    """

    expansion = 6

    def __init__(self, last: int, previous: int, width: int, *, halve: bool) -> None:
        super().__init__()
        self.fit_last = fit(last, width)
        self.fit_previous = fit_previous(previous, width, halve)
        self.last3, self.last5 = Separable(width, 3), Separable(width, 5)
        self.previous3 = Separable(width, 3)
        self.pair3, self.pair5 = Separable(width, 3), Separable(width, 5)

    def forward(self, last: Tensor, previous: Tensor) -> Tensor:
        """Outputs of the last cell and of the one before it -> output of this cell."""
        last, previous = self.fit_last(last), self.fit_previous(previous)
        sums = [
            self.last5(last) + self.previous3(previous),
            self.pair5(previous) + self.pair3(previous),
            _average(last, 1) + previous,
            2 * _average(previous, 1),
            self.last3(last) + last,
        ]
        return torch.cat([previous, *sums], 1)


class ReductionCell(nn.Module):
    """Half the size, 4 · width channels.

    Zoph et al. 2018, https://arxiv.org/abs/1707.07012, fig. 4 right. A fifth sum, `inner`,
    feeds two of the four and is not handed on itself.

    Args:
        last: channels of the last cell's output.
        previous: channels of the output of the cell before it.
        width: channels of each sum.
        halve: whether the last cell halved the image, so that the output before it is larger.
    """

    expansion = 4

    def __init__(self, last: int, previous: int, width: int, *, halve: bool) -> None:
        super().__init__()
        self.fit_last = fit(last, width)
        self.fit_previous = fit_previous(previous, width, halve)
        self.last5, self.previous5 = Separable(width, 5, 2), Separable(width, 5, 2)
        self.previous7a, self.previous7b = Separable(width, 7, 2), Separable(width, 7, 2)
        self.inner3 = Separable(width, 3)

    def forward(self, last: Tensor, previous: Tensor) -> Tensor:
        """Outputs of the last cell and of the one before it -> output of this cell."""
        last, previous = self.fit_last(last), self.fit_previous(previous)
        largest = F.max_pool2d(last, 3, 2, 1)
        inner = self.previous7a(previous) + self.last5(last)
        sums = [
            largest + self.previous7b(previous),
            _average(last, 2) + self.previous5(previous),
        ]
        sums += [_average(inner, 1) + sums[0], largest + self.inner3(inner)]
        return torch.cat(sums, 1)


def _average(x: Tensor, stride: int) -> Tensor:
    return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)


class NASNet(nn.Module):
    """Three groups of normal cells with a reduction cell between each two.

    Zoph et al. 2018, https://arxiv.org/abs/1707.07012, fig. 2 left, without the auxiliary head and
    the dropping of paths. With 4 cells a group and width 44 this is the "mobile" network of the
    CIFAR zoos; these count 882,816 weights more, of convolutions that they make and never use.
    The cuts are the ends of cells 3 (264×32×32 for a 32×32 image), 8 (528×16×16), 9, which is the
    second reduction (704×8×8), and 13 (1056×8×8). Initialization is torch's own.

    Args:
        repeats: normal cells of each group.
        width: channels of each sum in the first group and of the stem; doubled by each reduction.
        num_classes: outputs.
        in_channels: channels of the images.
    """

    def __init__(
        self, repeats: int = 4, width: int = 44, *, num_classes: int, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.stem = conv_bn(in_channels, width, 3, relu=False)
        self.cells = nn.ModuleList()
        last = previous = width
        halve = False
        group: list[type[NormalCell] | type[ReductionCell]] = [NormalCell] * repeats
        for kind in [*group, ReductionCell, *group, ReductionCell, *group]:
            width *= 2 if kind is ReductionCell else 1
            self.cells.append(kind(last, previous, width, halve=halve))
            last, previous, halve = kind.expansion * width, last, kind is ReductionCell
        self.fc = nn.Linear(last, num_classes)
        second = 2 * repeats + 1  # the second reduction
        ends = (repeats - 1, second - 1, second, second + repeats)
        self.cuts = tuple(f"cells.{i}" for i in ends)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, num_classes)."""
        last = previous = self.stem(x)
        for cell in self.cells:
            last, previous = cell(last, previous), last
        return self.fc(F.relu(last).mean((2, 3)))  # type: ignore[no-any-return]


NETWORKS = {"nasnet": NASNet}
