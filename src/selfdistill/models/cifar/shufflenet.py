"""ShuffleNets for 32×32 images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import conv_bn, named_sequential

STEM = 24
"""Channels of the stem of both networks."""


def shuffle(x: Tensor, groups: int) -> Tensor:
    """The first channel of each group, then the second of each, and so on: (B, C, H, W) the same.

    Zhang et al. 2018, https://arxiv.org/abs/1707.01083, fig. 1 c.
    """
    grouped: Tensor = x.unflatten(1, (groups, -1))  # type: ignore[no-untyped-call]
    return grouped.transpose(1, 2).flatten(1, 2)


class GroupedUnit(nn.Module):
    """Grouped 1×1 convolution, shuffle, depthwise 3×3 and grouped 1×1 beside a shortcut.

    Zhang et al. 2018, https://arxiv.org/abs/1707.01083, fig. 2 b; a unit that halves the image
    (fig. 2 c) joins the average of its input to the channels that it makes instead of adding it.
    As in the CRD benchmark's code, ReLU follows the depthwise convolution, where the paper has
    none, and the inner channels are a quarter of those that are made, where the paper's are a
    quarter of all that come out.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; a unit that does not halve the image has as many.
        groups: of the first and of the last 1×1 convolution; the shuffle mixes those of the first.
        halve: whether the image is halved.
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: tuple[int, int], *, halve: bool
    ) -> None:
        super().__init__()
        new_channels = out_channels - in_channels if halve else out_channels
        inner = new_channels // 4
        self.groups = groups[0]
        self.squeeze = conv_bn(in_channels, inner, 1, groups=groups[0])
        self.depthwise = conv_bn(inner, inner, 3, 2 if halve else 1, groups=inner)
        self.expand = conv_bn(inner, new_channels, 1, groups=groups[1], relu=False)
        self.pool = nn.AvgPool2d(3, 2, 1) if halve else None

    def forward(self, x: Tensor) -> Tensor:
        """ReLU of both paths, joined or added."""
        out = self.expand(self.depthwise(shuffle(self.squeeze(x), self.groups)))
        return F.relu(out + x if self.pool is None else torch.cat([out, self.pool(x)], 1))


class ShuffleNetV1(nn.Module):
    """Three stages of grouped units with 3 groups after a 1×1 stem.

    Zhang et al. 2018, https://arxiv.org/abs/1707.01083, table 1 at width 1, as the CRD benchmark,
    https://arxiv.org/abs/1910.10699, has it for small images: a 1×1 convolution of stride 1 stands
    for the 3×3 one of stride 2 and the max-pool, so that nothing but the depthwise convolutions
    sees more than one pixel. The first of all units does not group its first convolution. The cuts
    are the stem and the stages (24×32×32, 240×16×16, 480×8×8 and 960×4×4 for a 32×32 image).
    Initialization is torch's own.

    Args:
        num_classes: outputs.
        in_channels: channels of the images.
    """

    cuts = ("stem", "layer1", "layer2", "layer3")
    stage_ends = ("layer1", "layer2", "layer3")

    def __init__(self, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = conv_bn(in_channels, STEM, 1)
        self.layer1 = self._stage(STEM, 240, 4)
        self.layer2 = self._stage(240, 480, 8)
        self.layer3 = self._stage(480, 960, 4)
        self.fc = nn.Linear(960, num_classes)

    @staticmethod
    def _stage(in_channels: int, width: int, units: int) -> nn.Sequential:
        first = (1 if in_channels == STEM else 3, 3)  # the stem's few channels stay together
        others = [GroupedUnit(width, width, (3, 3), halve=False) for _ in range(units - 1)]
        return nn.Sequential(GroupedUnit(in_channels, width, first, halve=True), *others)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, num_classes)."""
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def branch(in_channels: int, width: int, stride: int) -> nn.Sequential:
    """1×1, depthwise 3×3 and 1×1 convolution; no ReLU follows the depthwise one."""
    return named_sequential(
        first=conv_bn(in_channels, width, 1),
        depthwise=conv_bn(width, width, 3, stride, groups=width, relu=False),
        last=conv_bn(width, width, 1),
    )


class SplitUnit(nn.Module):
    """Half of the channels pass as they are, half through a branch: (B, C, H, W) the same.

    Ma et al. 2018, https://arxiv.org/abs/1807.11164, fig. 3 c.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = branch(channels // 2, channels // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The halves joined and shuffled."""
        kept, changed = x.chunk(2, 1)
        return shuffle(torch.cat([kept, self.branch(changed)], 1), 2)


class HalvingUnit(nn.Module):
    """Two branches of stride 2 see all channels: (B, C, H, W) -> (B, out_channels, H / 2, W / 2).

    Ma et al. 2018, https://arxiv.org/abs/1807.11164, fig. 3 d.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.short = named_sequential(
            depthwise=conv_bn(in_channels, in_channels, 3, 2, groups=in_channels, relu=False),
            last=conv_bn(in_channels, out_channels // 2, 1),
        )
        self.branch = branch(in_channels, out_channels // 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The branches joined and shuffled."""
        return shuffle(torch.cat([self.short(x), self.branch(x)], 1), 2)


class ShuffleNetV2(nn.Module):
    """Three stages of units that split their channels, between 1×1 convolutions.

    Ma et al. 2018, https://arxiv.org/abs/1807.11164, table 5 at width 1, as the CRD benchmark,
    https://arxiv.org/abs/1910.10699, has it for small images: a 1×1 convolution of stride 1 stands
    for the 3×3 one of stride 2 and the max-pool. The cuts are the stem, the first two stages, and
    the third with the 1×1 convolution that the classifier pools (24×32×32, 116×16×16, 232×8×8 and
    1024×4×4 for a 32×32 image); the stage ends, as in the benchmark, stop before that convolution.
    Initialization is torch's own.

    Args:
        num_classes: outputs.
        in_channels: channels of the images.
    """

    cuts = ("stem", "layer1", "layer2", "head")
    stage_ends = ("layer1", "layer2", "layer3")

    def __init__(self, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = conv_bn(in_channels, STEM, 1)
        self.layer1 = self._stage(STEM, 116, 4)
        self.layer2 = self._stage(116, 232, 8)
        self.layer3 = self._stage(232, 464, 4)
        self.head = conv_bn(464, 1024, 1)
        self.fc = nn.Linear(1024, num_classes)

    @staticmethod
    def _stage(in_channels: int, width: int, units: int) -> nn.Sequential:
        return nn.Sequential(
            HalvingUnit(in_channels, width), *[SplitUnit(width) for _ in range(units - 1)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, num_classes)."""
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return self.fc(self.head(x).mean((2, 3)))  # type: ignore[no-any-return]


NETWORKS = {"shufflenet_v1": ShuffleNetV1, "shufflenet_v2": ShuffleNetV2}
