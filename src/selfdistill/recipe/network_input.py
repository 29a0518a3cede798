"""What a run's network is shown: the channels and the normalization of images, decided here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core import ConfigError
from ..data import ImageData
from ..data.class_folders import IMAGENET
from ..data.image_data import OWN, Numbers
from ..functional.channels import channels_convertible, convert_moments
from ..models import TrainedInput, build, count_channels, file_input, published_input, read_weights
from ..records.training_data import read_training_data
from ..taps import example_output
from .options import method_classes
from .run_weights import run_weights
from .schema import Recipe

IMAGENETS = "ImageNet's, since the set's own were not measured"


class InitialWeights(NamedTuple):
    """Weights that a run starts from, and what is known of the images they were trained on.

    Attributes:
        tensors: by name; none of published weights, which come with their network.
        images: what they were trained on; None where nobody knows.
        source: whose normalization it is, a phrase.
    """

    tensors: dict[str, Tensor]
    images: TrainedInput | None
    source: str


def initial_weights(recipe: Recipe) -> InitialWeights | None:
    """The weights that a recipe names; None if it names none.

    Raises:
        SelfdistillError: they cannot be read, see `run_weights` and `read_weights`, or are of a
            network that a method made.
    """
    if recipe.weights == "pretrained":
        return InitialWeights({}, published_input(recipe.model), "that of the pretrained weights")
    if not recipe.weights:
        return None
    path = Path(recipe.weights)
    if path.is_dir():
        trained_by, tensors = run_weights(path)
        if any(cls.composite for cls in method_classes(trained_by.method).values()):
            raise ConfigError(
                f"{path} was trained by {trained_by.method}, which left a network of its own "
                "making and no weights for another; it can be a teacher, --teacher"
            )
        own = read_training_data(path)
        return InitialWeights(tensors, TrainedInput(own.mean, own.std), f"that of the run {path}")
    tensors = read_weights(path)
    return InitialWeights(tensors, file_input(path), f"that in the header of {path}")


def as_network_input(
    recipe: Recipe,
    data: ImageData,
    *,
    model: nn.Module | None = None,
    weights: InitialWeights | None = None,
) -> ImageData:
    """Data with the channels that the network takes, and the normalization that it is to get.

    The normalization is the recipe's, else that of the weights, else the data set's own. Networks
    by name are built for the data's channels, unless their weights or their family have others.

    Args:
        recipe: names the network.
        data: as they were loaded.
        model: in place of the network that the recipe names.
        weights: that the network starts from.

    Raises:
        ConfigError: mean and std are of other channels.
    """
    channels = _network_channels(recipe, data, model, weights)
    if channels != data.train.shape[0]:
        data = data.with_channels(channels)
    if recipe.mean:
        numbers = {"mean": recipe.mean, "std": recipe.std}
        mean, std = (_for_channels(key, numbers[key], channels) for key in numbers)
        return data.normalized_by(mean, std, "set by mean and std")
    if weights and weights.images and len(weights.images.mean) == channels:
        return data.normalized_by(weights.images.mean, weights.images.std, weights.source)
    unknown = f", since '{recipe.weights}' does not tell its own; --mean and --std set it"
    imagenets = tuple(convert_moments(numbers, channels) for numbers in IMAGENET)
    source = IMAGENETS if data.moments == imagenets else OWN
    source += unknown * (weights is not None)
    return data.normalized_by(*data.moments, source)  # also of data that come from a run


def _network_channels(
    recipe: Recipe, data: ImageData, model: nn.Module | None, weights: InitialWeights | None
) -> int:
    """The channels that a network takes, or the data's where these cannot become them."""
    own = data.train.shape[0]
    if model is not None:
        wanted = module_channels(model, data.train.shape)
    elif weights and weights.images:
        wanted = len(weights.images.mean)
    else:
        tensors = weights.tensors if weights else {}
        wanted = named_channels(recipe.model, tensors, len(data.classes)) or own
    return wanted if channels_convertible(own, wanted) else own


def named_channels(model: str, tensors: Mapping[str, Tensor], classes: int) -> int | None:
    """The channels that a network by name takes by its family or its weights, else None."""
    if model.startswith("torchvision/"):
        return 3
    if not tensors:
        return None
    return count_channels(tensors, lambda n: build(model, num_classes=classes, in_channels=n))


def module_channels(network: nn.Module, shape: Sequence[int]) -> int:
    """The channels that a module takes images (C, H, W) in: C, or what C can become, by trial.

    Of clips (C, T, H, W) likewise.
    """
    channels, *sides = shape
    for count in (channels, {1: 3, 3: 1}.get(channels, channels)):
        try:
            example_output(network, torch.zeros(2, count, *sides))
        except ConfigError:
            continue
        return count
    return channels  # the check of the network says what it takes


def _for_channels(key: str, numbers: Numbers, channels: int) -> Numbers:
    if len(numbers) not in (1, channels):
        raise ConfigError(
            f"{key} has {len(numbers)} numbers and the network is shown images of {channels} "
            f"channel{'s' * (channels > 1)}; give {channels}, or one for all"
        )
    return numbers if len(numbers) == channels else numbers * channels
