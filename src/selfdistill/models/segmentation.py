"""Networks for semantic segmentation."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import ConfigError
from ..taps import find_taps
from .layers import conv_bn, init_kaiming, named_sequential


class FPN(nn.Module):
    """Feature pyramid network for segmentation: the sum of all levels at a quarter resolution.

    Panoptic feature pyramid networks (Kirillov et al. 2019, https://arxiv.org/abs/1901.02446), the
    branch for semantic segmentation in a plain form: each level is brought to the largest one's
    size by one bilinear step instead of several convolutions.

    Args:
        backbone: gives its stages' maps as a list, shallowest first.
        channels: of each map.
        cuts: names of the modules in the backbone at which its stages end.
        num_classes: scores of each pixel.
        width: channels of the pyramid.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: Sequence[int],
        cuts: Sequence[str],
        num_classes: int,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.cuts = tuple(f"backbone.{name}" for name in cuts)
        self.lateral = nn.ModuleList(conv_bn(c, width, 1, relu=False) for c in channels)
        self.smooth = nn.ModuleList(conv_bn(width, width, 3) for _ in channels)
        self.classify = nn.Conv2d(width, num_classes, 1)
        for part in (self.lateral, self.smooth):
            init_kaiming(part)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to scores (B, K, h, w) at the resolution of the first map."""
        maps = [lateral(m) for lateral, m in zip(self.lateral, self.backbone(x), strict=True)]
        levels = [maps[-1]]
        for finer in reversed(maps[:-1]):
            levels.append(finer + upsample_like(levels[-1], finer))
        levels = [smooth(m) for smooth, m in zip(self.smooth, reversed(levels), strict=True)]
        total = levels[0]
        for level in levels[1:]:
            total = total + upsample_like(level, total)
        scores: Tensor = self.classify(total)
        return scores


def upsample_like(x: Tensor, like: Tensor) -> Tensor:
    """Resize a map to the height and width of another, bilinear."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class SmallBackbone(nn.Module):
    """Four stages of two 3×3 convolutions each, at 1/2, 1/4, 1/8 and 1/16 of the resolution."""

    widths = (16, 32, 64, 96)

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        sizes = zip((in_channels, *self.widths), self.widths, strict=False)
        for i, (old, new) in enumerate(sizes, 1):
            stage = named_sequential(down=conv_bn(old, new, 3, 2), conv=conv_bn(new, new, 3))
            self.add_module(f"stage{i}", stage)
        init_kaiming(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps of all stages."""
        return [x := stage(x) for stage in self.children()]


def build_fpn(name: str, num_classes: int, in_channels: int, pretrained: bool) -> nn.Module:
    """`fpn/small`, or `fpn/timm/NAME` on any of timm's backbones that gives its features.

    Raises:
        ConfigError: no such backbone, or one that does not give its features.
    """
    if name == "small":
        if pretrained:
            raise ConfigError("no pretrained weights exist for fpn/small; take fpn/timm/resnet18")
        small = SmallBackbone(in_channels)
        cuts = [f"stage{i}" for i in range(1, 5)]
        return FPN(small, small.widths, cuts, num_classes, width=48)
    family, _, backbone = name.partition("/")
    if family != "timm" or not backbone:
        raise ConfigError(
            f"there is no network 'fpn/{name}'; there are fpn/small and fpn/timm/BACKBONE"
        )
    return _on_timm(backbone, num_classes, in_channels, pretrained)


def _on_timm(name: str, num_classes: int, in_channels: int, pretrained: bool) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"there is no backbone 'timm/{name}'")
    try:
        backbone = timm.create_model(
            name, pretrained=pretrained, features_only=True, in_chans=in_channels
        )
    except (RuntimeError, AttributeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"timm/{name} does not give its stages' features ({str(error).splitlines()[0]}); "
            "take another backbone, such as timm/resnet18"
        ) from error
    cuts = find_taps(backbone, torch.zeros(2, in_channels, 64, 64))
    channels = backbone.feature_info.channels()  # type: ignore[operator, union-attr]
    return FPN(backbone, channels, cuts, num_classes)


class TorchvisionSegmenter(nn.Module):
    """A segmentation network of torchvision that returns its scores alone, as it computes them.

    torchvision enlarges them to its input, as whoever reads scores here does. That would lead the
    input's size around all stages, so that the network could not be cut into these.

    Args:
        network: has a `backbone`, and a `classifier` of its features.

    Attributes:
        cuts: names of the modules at which the stages of its backbone end.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        stages = find_taps(network.get_submodule("backbone"), torch.zeros(2, 3, 64, 64))
        self.cuts = tuple(f"network.backbone.{name}" for name in stages)

    def forward(self, x: Tensor) -> Any:
        """(B, 3, H, W) to scores (B, K, h, w)."""
        features = self.network.get_submodule("backbone")(x)
        if "out" in features:  # else the classifier reads two of them
            features = features["out"]
        return self.network.get_submodule("classifier")(features)


def segmenter_names() -> list[str]:
    """torchvision's networks for segmentation."""
    from torchvision import models

    return models.list_models(module=models.segmentation)  # type: ignore[attr-defined, no-any-return]


def torchvision_segmenter(name: str, num_classes: int, pretrained: bool) -> nn.Module:
    """A network of torchvision; `pretrained` is its backbone on ImageNet."""
    from torchvision.models import get_model  # type: ignore[attr-defined]

    # without an auxiliary head, which some would otherwise have and some not
    extra = {} if name.startswith("lraspp") else {"aux_loss": False}
    backbone = "DEFAULT" if pretrained else None
    return TorchvisionSegmenter(
        get_model(name, num_classes=num_classes, weights_backbone=backbone, **extra)
    )
