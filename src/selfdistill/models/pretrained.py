"""Networks as their publishers trained them: all outputs, and the images that they expect."""

from typing import Any, NamedTuple

from torch import nn

from ..core import ConfigError
from .build import fetch, hint


class Pretrained(NamedTuple):
    """A published network.

    Attributes:
        network: with its own classes.
        classes: how many.
        mean, std: of the pixels in [0, 1] that it was trained on, one number a channel.
    """

    network: nn.Module
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def pretrained(model: str) -> Pretrained:
    """A network of timm or torchvision with its published weights and classes.

    Raises:
        ConfigError: there is no such network, or it has no published weights.
        ResourceError: the weights could not be fetched.
    """
    family, _, name = model.partition("/")
    if family == "timm":
        return _timm(name)
    if family == "torchvision":
        return _torchvision(name)
    raise ConfigError(f"'{model}' has no published weights; timm/ and torchvision/ networks have")


def _timm(name: str) -> Pretrained:
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"there is no network 'timm/{name}'{hint(f'timm/{name}')}")
    if not timm.models.is_model_pretrained(name):
        raise ConfigError(f"timm has no pretrained weights for '{name}'")
    network = fetch(f"timm/{name}", timm.create_model, pretrained=True)
    about: dict[str, Any] = vars(network)["pretrained_cfg"]
    return Pretrained(network, about["num_classes"], tuple(about["mean"]), tuple(about["std"]))


def _torchvision(name: str) -> Pretrained:
    from torchvision import models as zoo

    models: Any = zoo
    if name not in models.list_models(module=models):
        raise ConfigError(f"there is no network 'torchvision/{name}'{hint(f'torchvision/{name}')}")
    weights = models.get_model_weights(name)["DEFAULT"]
    images = weights.transforms()
    network = fetch(f"torchvision/{name}", models.get_model, weights=weights)
    classes = len(weights.meta["categories"])
    return Pretrained(network, classes, tuple(images.mean), tuple(images.std))
