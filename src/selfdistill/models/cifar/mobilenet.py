"""MobileNetV2 for 32×32 images."""

from functools import partial

from torch import Tensor, nn

from ..layers import conv_bn, init_kaiming, named_sequential


class InvertedResidual(nn.Module):
    """Expand by a 1×1 convolution, filter each channel by a 3×3 one, shrink by a 1×1 one.

    Sandler et al. 2018, https://arxiv.org/abs/1801.04381, table 1; the input is added where the
    shape stays the same. The last convolution is linear.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = expansion * in_channels
        self.residual = named_sequential(
            expand=conv_bn(in_channels, width, 1),
            depthwise=conv_bn(width, width, 3, stride, groups=width),
            shrink=conv_bn(width, out_channels, 1, relu=False),
        )
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H / stride, W / stride)."""
        out: Tensor = self.residual(x)
        return x + out if self.adds else out


class MobileNetV2(nn.Module):
    """Seven stages of inverted residuals between a 3×3 stem of stride 2 and a 1×1 convolution.

    Sandler et al. 2018, https://arxiv.org/abs/1801.04381, table 2, as the CRD benchmark,
    https://arxiv.org/abs/1910.10699, has it for small images: the second stage keeps the size,
    which makes it fall by 16 and not by 32; ReLU stands for ReLU6; the first stage, too, has the
    convolution that expands, though by 1; channels are not rounded to a multiple of 8, and there is
    no dropout. `mobilenet_v2` is the benchmark's network of half the width, not the paper's.

    The cuts are the ends of stages 2, 3 and 5, the last before the image shrinks, and the 1×1
    convolution that the classifier pools (12×16×16, 16×8×8, 48×4×4 and 1280×2×2 for
    `mobilenet_v2` and a 32×32 image). The benchmark's features, the stage ends here, are those of
    stages 2, 3, 5 and 7.

    Args:
        width: factor of the channels of the stem and of the stages; the head's 1280 stay.
        num_classes: outputs.
        in_channels: channels of the images.
    """

    cuts = ("features.layer2", "features.layer3", "features.layer5", "features.head")
    stage_ends = ("features.layer2", "features.layer3", "features.layer5", "features.layer7")

    def __init__(self, width: float, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        channels = int(32 * width)
        self.features = named_sequential(stem=conv_bn(in_channels, channels, 3, 2))
        for i, (expansion, full, depth, stride) in enumerate(_STAGES, start=1):
            stage = nn.Sequential()
            for j in range(depth):
                out_channels = int(full * width)
                block_stride = stride if j == 0 else 1
                stage.append(InvertedResidual(channels, out_channels, block_stride, expansion))
                channels = out_channels
            self.features.add_module(f"layer{i}", stage)
        self.features.add_module("head", conv_bn(channels, 1280, 1))
        self.fc = nn.Linear(1280, num_classes)
        init_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, num_classes)."""
        return self.fc(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


_STAGES = (  # expansion, channels at width 1, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

NETWORKS = {"mobilenet_v2": partial(MobileNetV2, 0.5)}
