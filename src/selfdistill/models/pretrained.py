"""Published networks with their weights, classes and normalization."""

import inspect
import typing
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from ..core import ConfigError
from .build import create_pretrained, name_hint, torchvision_names
from .cut import MARK
from .detectors import detector_names
from .renormalize import TrainedInput
from .segmentation import segmenter_names


class PretrainedNetwork(NamedTuple):
    """A published network, before its download.

    Attributes:
        load: downloads it; raises `ResourceError` where that fails.
        classes: number of outputs.
        input: of its images.
        license: of the weights, where it is known and asks for more than to be named; else "".
    """

    load: Callable[[], nn.Module]
    classes: int
    input: TrainedInput
    license: str = ""


_FREE = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "unknown", None)
"""Licenses, by timm's names, of which nothing is said."""


def find_pretrained(model: str, size: int | None = None) -> PretrainedNetwork:
    """A network of timm or torchvision with its published weights and classes.

    Args:
        model: timm/NAME or torchvision/NAME.
        size: side of the images that a network of one size only, such as a transformer, is made
            for; None is the size of its weights.

    Raises:
        ConfigError: there is no such network, or it has no published weights.
    """
    family, _, name = model.partition("/")
    if family == "timm":
        return _timm(name, size)
    if family == "torchvision":
        return _torchvision(name)
    raise ConfigError(f"'{model}' has no published weights; timm/ and torchvision/ networks have")


def _timm(name: str, size: int | None) -> PretrainedNetwork:
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"there is no network 'timm/{name}'{name_hint(f'timm/{name}')}")
    config: Any = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ConfigError(f"timm has no pretrained weights for '{name}'")
    made_for = {"img_size": size} if size and config.fixed_input_size else {}
    load = partial(
        create_pretrained, f"timm/{name}", timm.create_model, pretrained=True, **made_for
    )
    license = "" if config.license in _FREE else config.license
    return PretrainedNetwork(load, config.num_classes, _timm_input(config), license)


def _torchvision(name: str) -> PretrainedNetwork:
    from torchvision import models as torchvision_models

    models: Any = torchvision_models
    if name not in torchvision_names():
        raise ConfigError(
            f"there is no network 'torchvision/{name}'{name_hint(f'torchvision/{name}')}"
        )
    weights = models.get_model_weights(name)["DEFAULT"]
    load = partial(create_pretrained, f"torchvision/{name}", models.get_model, weights=weights)
    license = weights.meta.get("license", "")  # an address, of few weights
    classes = len(weights.meta["categories"])
    return PretrainedNetwork(load, classes, _torchvision_input(weights), license)


def published_input(model: str) -> TrainedInput | None:
    """Images of the weights that `build` takes for "pretrained"; None where it has none.

    A pyramid and torchvision's networks for scenes have a pretrained backbone.
    """
    family, _, name = model.partition(MARK)[0].removeprefix("fpn/").partition("/")
    if family == "timm":
        import timm

        config: Any = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
        return _timm_input(config) if config is not None and config.has_weights else None
    if family != "torchvision":
        return None
    from torchvision import models as torchvision_models

    models: Any = torchvision_models
    if name in torchvision_names():
        return _torchvision_input(models.get_model_weights(name)["DEFAULT"])
    if name not in (*segmenter_names(), *detector_names()):
        return None
    keyword = inspect.signature(models.get_model_builder(name)).parameters["weights_backbone"]
    backbone, *_ = typing.get_args(keyword.annotation)  # of Optional[...]
    return _torchvision_input(backbone["DEFAULT"])


def _timm_input(config: Any) -> TrainedInput:
    return TrainedInput(tuple(config.mean), tuple(config.std), tuple(config.input_size)[1:])


def _torchvision_input(weights: Any) -> TrainedInput:
    images = weights.transforms()
    size = tuple(images.crop_size) * 2 if hasattr(images, "crop_size") else ()
    return TrainedInput(tuple(images.mean), tuple(images.std), size[:2])
