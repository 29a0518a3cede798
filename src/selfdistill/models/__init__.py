"""Networks by name: our CIFAR networks, timm's and torchvision's; weights from files."""

from .build import build, list_models, register_model
from .pretrained import PretrainedNetwork, find_pretrained, published_input
from .renormalize import TrainedInput, convert_inputs, renormalize_inputs, resize_inputs
from .weights import (
    SUFFIX_LIST,
    SUFFIXES,
    count_channels,
    count_classes,
    file_input,
    load_weights,
    read_weights,
    set_weights,
)

__all__ = [
    "SUFFIXES",
    "SUFFIX_LIST",
    "PretrainedNetwork",
    "TrainedInput",
    "build",
    "convert_inputs",
    "count_channels",
    "count_classes",
    "file_input",
    "find_pretrained",
    "list_models",
    "load_weights",
    "published_input",
    "read_weights",
    "register_model",
    "renormalize_inputs",
    "resize_inputs",
    "set_weights",
]
