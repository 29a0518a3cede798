"""Wide residual networks for 32×32 images."""

from functools import partial

from torch import Tensor, nn

from ..layers import bn_relu, init_kaiming, named_sequential


class WideBlock(nn.Module):
    """Batch norm and ReLU before each of two 3×3 convolutions, beside a shortcut.

    Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146, fig. 1 a. Where the channels
    change, the shortcut is a 1×1 convolution behind the first ReLU; elsewhere it is the input.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm = bn_relu(in_channels)
        self.residual = named_sequential(
            conv1=nn.Conv2d(in_channels, width, 3, stride, 1, bias=False),
            norm=bn_relu(width),
            conv2=nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        changes = in_channels != width
        self.shortcut = nn.Conv2d(in_channels, width, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both paths: (B, C, H, W) -> (B, width, H / stride, W / stride)."""
        active = self.norm(x)
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.residual(active) + shortcut  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """Three stages of wide blocks, then batch norm and ReLU.

    Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146, table 1, without dropout; that
    of the CRD benchmark, https://arxiv.org/abs/1910.10699, is the same network. The cuts are the
    stem, the sums at the end of the first two stages, not yet normalized, and the batch norm and
    ReLU that the classifier pools (16×32×32, 32×32×32, 64×16×16 and 128×8×8 for `wrn_40_2` and a
    32×32 image). The stages end with the sums, the third, as in the benchmark, too.

    Args:
        depth: six times the blocks of a stage, and four: 16, 22, 28, ….
        widen: factor of the channels 16, 32 and 64 of the stages; the stem always has 16.
        num_classes: outputs.
        in_channels: channels of the images.
    """

    cuts = ("stem", "block1", "block2", "norm")
    stage_ends = ("block1", "block2", "block3")

    def __init__(self, depth: int, widen: int, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.stem = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.block1 = stage(16, 16 * widen, blocks, 1)
        self.block2 = stage(16 * widen, 32 * widen, blocks, 2)
        self.block3 = stage(32 * widen, 64 * widen, blocks, 2)
        self.norm = bn_relu(64 * widen)
        self.fc = nn.Linear(64 * widen, num_classes)
        init_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, num_classes)."""
        x = self.block3(self.block2(self.block1(self.stem(x))))
        return self.fc(self.norm(x).mean((2, 3)))  # type: ignore[no-any-return]


def stage(in_channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks of one size, of which the first has the stride."""
    others = [WideBlock(width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(WideBlock(in_channels, width, stride), *others)


NETWORKS = {
    f"wrn_{depth}_{widen}": partial(WideResNet, depth, widen)
    for depth, widen in ((16, 1), (16, 2), (40, 1), (40, 2), (28, 10))
}
