"""Runs whose data need not be there: what is known of these stands in their directory."""

import warnings
from pathlib import Path
from typing import Any

import torch

from ..core import ArtifactError
from ..data import ImageData, InMemoryImages
from ..data.clips import InMemoryClips
from ..records.training_data import TrainingData, read_training_data
from .run import Run, load


def load_without_images(path: Path, **objects: Any) -> Run:
    """A run with the description of its data in their place.

    Args:
        path: its directory.
        objects: see `load`.

    Raises:
        SelfdistillError: see `load` and `data_without_images`.
    """
    data = data_without_images(read_training_data(path))
    with warnings.catch_warnings():  # of images that are not the run's: these are none
        warnings.filterwarnings("ignore", ".* has changed since ")
        return load(path, data=data, **objects)


def data_without_images(trained_on: TrainingData) -> ImageData:
    """The description of a run's data in the form of data, so that a run loads without them.

    Raises:
        ArtifactError: the run does not say how pictures are prepared.
    """
    preparation = trained_on.preparation
    if preparation is None:
        raise ArtifactError("data.json does not say how pictures are prepared; train the run anew")
    num_images = trained_on.parts["train"].images
    black = torch.zeros(1, dtype=torch.uint8).expand(num_images, *preparation.shape)
    labels = torch.arange(num_images) % len(trained_on.classes)
    images = InMemoryImages(black, labels)
    if clip := preparation.clip:
        frame, lengths = black[:, :, 0], torch.ones(num_images, dtype=torch.int64)
        images = InMemoryClips(frame, lengths, labels, clip)
    return ImageData(
        trained_on.name,
        images,
        None,
        None,
        list(trained_on.classes),
        trained_on.mean,
        trained_on.std,
        crop_padding=0,
        flip=False,
        resized_crop=False,
        task=trained_on.task,
        fit=preparation.fit,
        resize_ratio=preparation.resize_ratio,
        normalization=trained_on.normalization,
        own_moments=trained_on.own_moments,
    )
