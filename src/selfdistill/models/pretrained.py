"""Published networks with their weights, classes and normalization."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from ..core import ConfigError
from .build import create_pretrained, name_hint


class PretrainedNetwork(NamedTuple):
    """A published network, before its download.

    Attributes:
        load: downloads it; raises `ResourceError` where that fails.
        classes: number of outputs.
        mean, std: of the pixels in [0, 1] that it was trained on, one number a channel.
    """

    load: Callable[[], nn.Module]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def find_pretrained(model: str) -> PretrainedNetwork:
    """A network of timm or torchvision with its published weights and classes.

    Raises:
        ConfigError: there is no such network, or it has no published weights.
    """
    family, _, name = model.partition("/")
    if family == "timm":
        return _timm(name)
    if family == "torchvision":
        return _torchvision(name)
    raise ConfigError(f"'{model}' has no published weights; timm/ and torchvision/ networks have")


def _timm(name: str) -> PretrainedNetwork:
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"there is no network 'timm/{name}'{name_hint(f'timm/{name}')}")
    config: Any = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ConfigError(f"timm has no pretrained weights for '{name}'")
    load = partial(create_pretrained, f"timm/{name}", timm.create_model, pretrained=True)
    return PretrainedNetwork(load, config.num_classes, tuple(config.mean), tuple(config.std))


def _torchvision(name: str) -> PretrainedNetwork:
    from torchvision import models as torchvision_models

    models: Any = torchvision_models
    if name not in models.list_models(module=models):
        raise ConfigError(
            f"there is no network 'torchvision/{name}'{name_hint(f'torchvision/{name}')}"
        )
    weights = models.get_model_weights(name)["DEFAULT"]
    images, classes = weights.transforms(), len(weights.meta["categories"])
    load = partial(create_pretrained, f"torchvision/{name}", models.get_model, weights=weights)
    return PretrainedNetwork(load, classes, tuple(images.mean), tuple(images.std))
