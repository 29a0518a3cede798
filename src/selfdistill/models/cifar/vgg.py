"""Plain convolutional networks for 32×32 images."""

from functools import partial

from torch import Tensor, nn

from ..layers import conv_bn, init_kaiming


class VGG(nn.Module):
    """Five blocks of 3×3 convolutions with batch norm, each followed by a 2×2 max-pool.

    Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556, table 1, with the batch norm of
    Ioffe and Szegedy and, as usual for small images, one linear layer instead of three. The cuts
    are the first three pools (64×16×16, 128×8×8 and 256×4×4 for a 32×32 image) and the fifth block
    before its pool (512×2×2). Convolutions have a bias.

    `vgg8` and `vgg13` are those of the CRD benchmark, https://arxiv.org/abs/1910.10699: of
    `vgg13_bn` only the pools differ. The fourth makes 4×4 of any size, which leaves a 32×32 image's
    maps alone and halves those of a 64×64 one, as the public code does by a condition; the fifth is
    missing. Their cuts are blocks 1, 2, 3 and 5 (64×32×32, 128×16×16, 256×8×8 and 512×4×4); the
    benchmark's features, the stage ends here, are blocks 2 to 5.

    Args:
        depths: convolutions of each block.
        grid: rows and columns of the last block's maps; without it, each block halves the image.
        num_classes: outputs.
        in_channels: channels of the images.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        *,
        grid: int | None = None,
        num_classes: int,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential()
        channels, widths = in_channels, (64, 128, 256, 512, 512)
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            block = nn.Sequential()
            for _ in range(depth):
                block.append(conv_bn(channels, width, 3, bias=True))
                channels = width
            self.features.add_module(f"block{i}", block)
            if i < 4 or grid is None:
                self.features.add_module(f"pool{i}", nn.MaxPool2d(2))
            elif i == 4:
                self.features.add_module("pool4", nn.AdaptiveMaxPool2d(grid))
        self.fc = nn.Linear(channels, num_classes)
        shallow = "pool" if grid is None else "block"
        self.cuts = (*(f"features.{shallow}{i}" for i in (1, 2, 3)), "features.block5")
        self.stage_ends = self.cuts
        if grid is not None:
            self.stage_ends = tuple(f"features.block{i}" for i in (2, 3, 4, 5))
        init_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, num_classes)."""
        return self.fc(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


NETWORKS = {
    "vgg11_bn": partial(VGG, (1, 1, 2, 2, 2)),
    "vgg13_bn": partial(VGG, (2, 2, 2, 2, 2)),
    "vgg16_bn": partial(VGG, (2, 2, 3, 3, 3)),
    "vgg19_bn": partial(VGG, (2, 2, 4, 4, 4)),
    "vgg8": partial(VGG, (1, 1, 1, 1, 1), grid=4),
    "vgg13": partial(VGG, (2, 2, 2, 2, 2), grid=4),
}
