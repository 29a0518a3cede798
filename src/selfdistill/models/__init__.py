"""Networks by name: our CIFAR networks, timm's and torchvision's; weights from files."""

from .build import build, list_models, register_model
from .pretrained import PretrainedNetwork, find_pretrained
from .weights import SUFFIXES, load_weights, read_weights, set_weights

__all__ = [
    "SUFFIXES",
    "PretrainedNetwork",
    "build",
    "find_pretrained",
    "list_models",
    "load_weights",
    "read_weights",
    "register_model",
    "set_weights",
]
