"""Networks by name: our CIFAR networks, timm's and torchvision's; weights from files."""

from .build import build, names
from .pretrained import Pretrained, pretrained
from .weights import SUFFIXES, load_weights

__all__ = ["SUFFIXES", "Pretrained", "build", "load_weights", "names", "pretrained"]
