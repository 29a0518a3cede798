"""torchvision's detectors for normalized batches, with raw outputs.

torchvision's own forward pass scales and normalizes images and returns losses in training and boxes
in evaluation. Here the trained parts run on the batch as it is, and their raw outputs have the
methods that compute the loss or the boxes by torchvision's own functions.
"""

from torch import nn

from .one_stage import OneStageDetector
from .two_stage import FasterRCNN

_CUTS = {
    "resnet50": [f"backbone.body.layer{i}" for i in (1, 2, 3, 4)],
    "ssdlite320_mobilenet_v3_large": [f"backbone.features.{i}" for i in ("0.3", "0.6", "0", "1")],
    "ssd300_vgg16": ["backbone.features.8", "backbone.features.15", "backbone.features"],
    "mobilenet_v3_large": [f"backbone.body.{i}" for i in (3, 6, 12, 16)],
}
"""The ends of the backbone's stages by part of the network's name; the first match counts."""


def detector_names() -> list[str]:
    """torchvision's networks for detection, without those that also predict masks or key points."""
    from torchvision import models

    available: list[str] = models.list_models(module=models.detection)  # type: ignore[attr-defined]
    return [name for name in available if not name.startswith(("mask", "keypoint"))]


def torchvision_detector(name: str, num_classes: int, pretrained: bool) -> nn.Module:
    """A network of torchvision; `pretrained` is its backbone on ImageNet.

    Raises:
        KeyError: no such network.
    """
    from torchvision.models import get_model  # type: ignore[attr-defined]

    backgrounds = 0 if name.startswith(("retinanet", "fcos")) else 1
    network = get_model(
        name,
        weights=None,
        weights_backbone="DEFAULT" if pretrained else None,
        num_classes=num_classes + backgrounds,
    )
    cuts = next(cuts for part, cuts in _CUTS.items() if part in name)
    return FasterRCNN(network, cuts) if hasattr(network, "rpn") else OneStageDetector(network, cuts)
