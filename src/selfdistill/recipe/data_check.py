"""Whether data are those that a network was trained on; all that joins the two asks here."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..core import ArtifactError, DataError
from ..data import ImageData, ImageFiles, ImageSet
from ..data.image_data import Numbers
from ..data.preparation import preparation_of
from ..data.targets import Embeddings, Unlabeled
from ..functional.channels import channels_convertible
from ..records.embeddings import FILE as EMBEDDINGS_FILE
from ..records.embeddings import read_embeddings
from ..records.training_data import ExtraRecord, PartRecord, TrainingData
from ..tasks import TASKS

_SAME = 1e-3  # of a standard deviation: decoders differ less between machines
_MAX_HASHED = 1 << 24  # elements of a tensor of targets


class Classes(Protocol):
    """Data by their task and the names of their classes."""

    @property
    def task(self) -> str:
        """A name in `tasks.TASKS`, "" where it is not known."""

    @property
    def classes(self) -> Sequence[str]:
        """In the order of the labels."""


def describe_data(data: ImageData) -> TrainingData:
    """The record of a run's data."""
    splits = {"train": data.train, "val": data.val, "test": data.test}
    parts = {name: _describe_part(part) for name, part in splits.items() if part is not None}
    classes, shape, preparation = list(data.classes), tuple(data.train.shape), preparation_of(data)
    return TrainingData(
        data.name,
        data.task,
        classes,
        data.mean,
        data.std,
        shape,
        parts,
        preparation,
        data.normalization,
        data.moments,
        ExtraRecord(data.extra.name, len(data.extra.images), data.extra.sha256)
        if data.extra
        else None,
    )


def _describe_part(images: ImageSet) -> PartRecord:
    files = hashlib.sha256()
    if isinstance(images, ImageFiles):
        for identity in images.identities():
            files.update(identity + b"\0")
    in_files = isinstance(images, ImageFiles)
    return PartRecord(len(images), _labels_digest(images), files.hexdigest() if in_files else "")


def _labels_digest(images: ImageSet) -> str:
    """SHA-256 of all labels of a part, of masks of many pixels of every n-th one."""
    digest = hashlib.sha256()
    labels = vars(images.targets)
    if isinstance(images.targets, Unlabeled):  # a teacher's embeddings come later
        labels = {"strata": images.targets.strata}
    for name, tensor in sorted(labels.items()):
        if isinstance(tensor, Tensor):
            flat = tensor.detach().cpu().flatten()
            flat = flat[:: max(1, -(-flat.numel() // _MAX_HASHED))]
            values = flat.round() if flat.is_floating_point() else flat  # of boxes: whole pixels
            digest.update(name.encode() + values.to(torch.int32).numpy().tobytes())
    return digest.hexdigest()


def class_difference(trained_on: Classes, data: ImageData) -> str:
    """In which the task or the classes of data are not those of a training, a clause, or ""."""
    if trained_on.task not in ("", data.task):
        return f"was trained for {trained_on.task} and '{data.name}' is for {data.task}"
    own, classes = list(trained_on.classes), list(data.classes)
    if len(own) != len(classes):
        return (
            f"tells {len(own)} classes apart and '{data.name}' has {len(classes)} "
            f"({_first_names(own, classes)})"
        )
    different = next(((a, b) for a, b in zip(own, classes, strict=True) if a != b), None)
    return f"has '{different[0]}' where '{data.name}' has '{different[1]}'" if different else ""


def _first_names(own: list[str], classes: list[str]) -> str:
    """A class that only one of the two has, to tell by which they differ."""
    if extra := [name for name in classes if name not in own]:
        return f"'{extra[0]}' is new"
    missing = [name for name in own if name not in classes]
    return f"'{missing[0]}' is missing" if missing else "some are named twice"


def image_difference(trained_on: TrainingData, data: ImageData) -> str:
    """In which the images of data are not those of a training, a clause, or ""."""
    now = describe_data(data)
    for split in dict.fromkeys([*trained_on.parts, *now.parts]):
        old, new = (record.parts.get(split, PartRecord(0, "", "")) for record in (trained_on, now))
        if old.images != new.images:
            return f"it has {new.images:,} {split} images and was {old.images:,} then"
        if trained_on.shape == now.shape and old.labels != new.labels:
            return f"the labels of its {split} images are others, or in another order"
        if old.files and new.files and old.files != new.files:
            return f"the files of its {split} images have other names or another order"
    if trained_on.extra and now.extra:  # read where they are learned from, and nowhere else
        if (then := trained_on.extra.images) != now.extra.images:
            return f"it has {now.extra.images:,} extra images and was {then:,} then"
        if trained_on.extra.sha256 != now.extra.sha256:
            return "its extra images are others"
    if trained_on.own_moments and trained_on.shape == now.shape:
        distance = _moments_distance(trained_on.own_moments, data.moments)
        return "its pixels have another mean or deviation" if distance > _SAME else ""
    return ""


def _moments_distance(old: tuple[Numbers, Numbers], new: tuple[Numbers, Numbers]) -> float:
    """Largest difference of mean or deviation, in standard deviations of the new."""
    return max(max(abs(m - n) / s, abs(t / s - 1)) for m, t, n, s in zip(*old, *new, strict=True))


def as_trained(
    run_dir: Path, trained_on: TrainingData, data: ImageData, *, exact: bool = False
) -> ImageData:
    """The data of a run, with the channels and the normalization of its training.

    Where its classes are the dimensions of an embedding it gets these, too, and its held-out
    images what the teacher gives for them.

    Args:
        run_dir: of the run.
        trained_on: what it was trained on.
        data: what is there now.
        exact: whether the images must be the same, too; otherwise other ones are warned of.

    Raises:
        DataError: task, classes, channels or, if `exact`, images are not those of the training.
        ArtifactError: the teacher's embeddings of the held-out images are gone.
    """
    if learns_embedding := data.task == trained_on.task and TASKS[data.task].embeddings:
        data = replace(data, classes=list(trained_on.classes))
    if difference := class_difference(trained_on, data):
        raise DataError(f"{run_dir} {difference}; give back the data that it was trained on")
    data = in_channels(data, len(trained_on.mean))
    if len(trained_on.mean) != len(data.mean):
        raise DataError(
            f"{run_dir} was trained on {len(trained_on.mean)} channels and '{data.name}' has "
            f"{len(data.mean)}; give back the data that it was trained on"
        )
    if difference := image_difference(trained_on, data):
        changed = f"'{data.name}' has changed since {run_dir} was trained: {difference}"
        if exact:
            raise DataError(
                f"{changed}; give back the data that it was trained on, or start a new run"
            )
        consequence = "images that are held out now may have been trained on"
        if learns_embedding:
            consequence = "none are held out, since nobody asked the teacher about these"
            data = replace(data, val=None, test=None)
        warnings.warn(f"{changed}; {consequence}", stacklevel=2)
    if learns_embedding:
        data = _with_own_embeddings(run_dir, data, may_lack=exact)
    return data.normalized_by(trained_on.mean, trained_on.std, trained_on.normalization)


def _with_own_embeddings(run_dir: Path, data: ImageData, *, may_lack: bool) -> ImageData:
    """Data with what the teacher of a run gave for the held-out images; a resume makes it anew."""
    embeddings = read_embeddings(run_dir)
    if embeddings is None and (may_lack or not (data.val or data.test)):
        return data
    if embeddings is None:
        raise ArtifactError(
            f"{run_dir / EMBEDDINGS_FILE} is gone, by which the run is scored; train --resume "
            f"{run_dir} asks its teacher again"
        )
    return with_embeddings(data, embeddings)


def with_embeddings(data: ImageData, embeddings: Mapping[str, Tensor]) -> ImageData:
    """Data whose held-out images have what a teacher gave for them as targets.

    Raises:
        DataError: they are of other images.
    """
    parts: dict[str, ImageSet] = {}
    for split in ("val", "test"):
        images: ImageSet | None = getattr(data, split)
        if images is None:
            continue
        vectors = embeddings.get(split)
        if vectors is None or tuple(vectors.shape) != (len(images), len(data.classes)):
            raise DataError(
                f"the {split} images of '{data.name}' are not those that the run's teacher was "
                "asked about; give back the data that it was trained on"
            )
        parts[split] = images.with_targets(Embeddings(images.labels, vectors))
    return replace(data, **parts)  # type: ignore[arg-type]


def in_channels(data: ImageData, channels: int) -> ImageData:
    """Data in so many channels, where they can be converted."""
    own = data.train.shape[0]
    convertible = own != channels and channels_convertible(own, channels)
    return data.with_channels(channels) if convertible else data
