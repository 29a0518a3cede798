"""Networks by name: our CIFAR networks, timm's and torchvision's; weights from files."""

from .build import build, list_models, register_model
from .pretrained import PretrainedNetwork, find_pretrained
from .renormalize import renormalize_inputs
from .weights import SUFFIXES, count_classes, load_weights, read_weights, set_weights

__all__ = [
    "SUFFIXES",
    "PretrainedNetwork",
    "build",
    "count_classes",
    "find_pretrained",
    "list_models",
    "load_weights",
    "read_weights",
    "register_model",
    "renormalize_inputs",
    "set_weights",
]
