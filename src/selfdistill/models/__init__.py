"""Networks by name: our CIFAR networks, timm's and torchvision's; weights from files."""

from .build import build, names
from .weights import load_weights

__all__ = ["build", "load_weights", "names"]
