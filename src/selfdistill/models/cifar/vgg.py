"""Plain convolutional networks for 32×32 images."""

from functools import partial

from torch import Tensor, nn

from ..parts import conv_bn, init_kaiming


class VGG(nn.Module):
    """Five blocks of 3×3 convolutions with batch norm, each followed by a 2×2 max-pool.

    Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556, table 1, with the batch norm of
    Ioffe and Szegedy and, as usual for small images, one linear layer instead of three. The cuts
    are the first three pools (64×16×16, 128×8×8 and 256×4×4 for a 32×32 image) and the fifth block
    before its pool (512×2×2). Convolutions have a bias.

    Args:
        depths: convolutions of each block.
        num_classes: outputs.
        in_channels: channels of the images.
    """

    cuts = ("features.pool1", "features.pool2", "features.pool3", "features.block5")

    def __init__(self, depths: tuple[int, ...], *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential()
        channels, widths = in_channels, (64, 128, 256, 512, 512)
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            block = nn.Sequential()
            for _ in range(depth):
                block.append(conv_bn(channels, width, 3, bias=True))
                channels = width
            self.features.add_module(f"block{i}", block)
            self.features.add_module(f"pool{i}", nn.MaxPool2d(2))
        self.fc = nn.Linear(channels, num_classes)
        init_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, num_classes)."""
        return self.fc(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


NETWORKS = {
    "vgg11_bn": partial(VGG, (1, 1, 2, 2, 2)),
    "vgg13_bn": partial(VGG, (2, 2, 2, 2, 2)),
    "vgg16_bn": partial(VGG, (2, 2, 3, 3, 3)),
    "vgg19_bn": partial(VGG, (2, 2, 4, 4, 4)),
}
