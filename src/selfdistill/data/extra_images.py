"""Images without labels of a second source, and training batches that bring some along."""

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core import Batch, ConfigError, DataError, keyed_random, nearest
from ..functional.channels import channels_convertible
from .class_folders import at_size
from .eval_loader import EvalLoader
from .hugging_face import read_hugging_face
from .image_set import ImageSet
from .images import ImageFiles
from .in_memory import InMemoryImages
from .kept_listing import CACHE, ListedImages, listed_images
from .listing import Listing
from .loader import Loader
from .npz import read_npz_images
from .open_image import EXTENSIONS
from .shards import read_shards
from .splits import DatasetSplits, check_folder
from .targets import Labels

KINDS = ("folder:PATH", "npz:FILE", "wds:SHARDS", "hf:SET")
_SEED = keyed_random.purpose("extra images")


@dataclass(frozen=True)
class ExtraImages:
    """Images without labels, as they are stored.

    Attributes:
        name: as given to `read_extra_images`.
        images: at their own sizes; files are not decoded.
        sha256: of the files' relative paths and sizes, or of the pixels of an archive `npz:FILE`.
        notes: what a user should know of how they were read.
    """

    name: str
    images: ImageSet
    sha256: str
    notes: tuple[str, ...] = ()

    def in_shape(self, shape: tuple[int, ...]) -> ImageSet:
        """The images as (C, H, W); those in files are decoded into memory if they fit into 2 GiB.

        Raises:
            DataError: they cannot be converted to so many channels, or some cannot be read.
        """
        images, (channels, *size) = self.images, shape
        own = images.shape[0]
        if own != channels and not channels_convertible(own, channels):
            raise DataError(
                f"{self.name} has images of {own} channels and the training images have {channels}"
            )
        if isinstance(images, ImageFiles):
            images = at_size({"extra": images}, (size[0], size[1]))["extra"]
        elif isinstance(images, InMemoryImages):
            images = images.resized((size[0], size[1]))
        return images.with_channels(channels)


def read_extra_images(name: str, root: Path | str = CACHE) -> ExtraImages:
    """The images of `folder:PATH`, in it and below, or of another source.

    Of `npz:FILE` the array `images`, of `wds:SHARDS` and `hf:SET` the training part. Folders of
    classes and labels are ignored.

    Args:
        name: of the source.
        root: where indices of shards are kept that cannot lie beside them.

    Raises:
        ConfigError: the name is of another form.
        DataError: the data are missing or invalid, or there is no image in them.
        MissingExtraError: `hf:SET` without the library `datasets`.
    """
    kind, _, path = name.partition(":")
    if path and kind == "folder":
        return _read_folder(name, Path(path).expanduser())
    if path and kind == "npz":
        images = read_npz_images(Path(path).expanduser())
        digest = hashlib.sha256(repr(images.shape).encode())
        digest.update(images.images.numpy().data)
        return ExtraImages(name, images, digest.hexdigest())
    if path and kind == "wds":
        return _packed(name, read_shards(path, Path(root).expanduser(), labeled=False))
    if path and kind == "hf":
        return _packed(name, read_hugging_face(path, labeled=False))
    meant = nearest(name, KINDS)
    hint = f" (did you mean 'folder:{name}'?)" if Path(name).is_dir() else meant
    raise ConfigError(f"extra = '{name}' is no source of images{hint}")


def _read_folder(name: str, folder: Path) -> ExtraImages:
    check_folder(folder)

    def read(listing: Listing) -> ListedImages:
        paths, _ = listing.class_images([folder])
        numbers = np.zeros(len(paths), np.int32)
        return ListedImages([], {"train": (paths, numbers)}, listing.notes())

    listed = listed_images(folder, "pictures", read)
    paths, _ = listed.parts["train"]
    if not len(paths):
        raise DataError(
            f"there is no picture in {folder} or below; extra images are files with one of "
            f"{', '.join(EXTENSIONS)}"
        )
    digest = hashlib.sha256()
    for path in paths:  # relative, so that the images may move
        stored = f"\0{os.stat(path).st_size}\0".encode()
        digest.update(os.fsencode(os.path.relpath(path, folder)) + stored)
    images = ImageFiles(paths, torch.zeros(len(paths), dtype=torch.int64), (1, 1))
    return ExtraImages(name, images, digest.hexdigest(), listed.notes)


def _packed(name: str, splits: DatasetSplits) -> ExtraImages:
    """The training part of a set whose images have names and sizes."""
    images, digest = splits.train, hashlib.sha256()
    assert isinstance(images, ImageFiles)
    for identity in images.identities():
        digest.update(identity + b"\0")
    bare = images.with_targets(Labels(torch.zeros(len(images), dtype=torch.int64)))
    return ExtraImages(name, bare, digest.hexdigest(), splits.notes)


def extra_seed(seed: int) -> int:
    """The key of all draws for the extra images of a run."""
    return int(keyed_random.bits(_SEED, seed))


class _ExtraBatches:
    """Batches of extra images, and the choice among them.

    Args:
        extra: batches of the extra images, divided like those among processes and micro-batches.
        unaugmented: this process's share of them in order.
    """

    def __init__(self, extra: Loader, unaugmented: EvalLoader) -> None:
        self.extra, self.unaugmented = extra, unaugmented

    def pool(self) -> Iterable[Batch]:
        """This process's share of all extra images, in order, not augmented."""
        return self.unaugmented

    def choose(self, indices: Tensor) -> None:
        """Take only these extra images, (M,) int64, from the next epoch on."""
        self.extra.choose(indices)


class UnlabeledLoader(_ExtraBatches):
    """Training batches of extra images alone, without targets."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over all extra images."""
        return self.extra.steps_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The batches of an epoch from step `start` on: for each step one per micro-batch."""
        for step in self.extra.epoch(epoch, start):
            yield [batch._replace(targets=None) for batch in step]


class LoaderWithExtra(_ExtraBatches):
    """Training batches that each bring extra images, which are passed over at a pace of their own.

    An epoch is one of the training images. The extra images are shuffled anew for each pass over
    them, which goes on from one epoch to the next, or begins with the epoch where they are chosen.
    Which are used at a step is a function of the seed, the number of the step in the run, and the
    choice.

    Args:
        training: batches of the training images.
        extra, unaugmented: see `_ExtraBatches`.
    """

    def __init__(self, training: Loader, extra: Loader, unaugmented: EvalLoader) -> None:
        super().__init__(extra, unaugmented)
        self.training = training

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training images."""
        return self.training.steps_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The batches of an epoch from step `start` on: for each step one per micro-batch."""
        extra = self._extra(epoch, start)
        for step in zip(self.training.epoch(epoch, start), extra, strict=False):
            pairs = zip(*step, strict=True)
            yield [batch._replace(extra=other.inputs) for batch, other in pairs]

    def _extra(self, epoch: int, start: int) -> Iterator[list[Batch]]:
        """The extra batches from a step of an epoch on, without end."""
        before = epoch * self.steps_per_epoch
        if self.extra.chosen is not None:  # a pass of an earlier choice could not go on
            passes = -(-self.steps_per_epoch // self.extra.steps_per_epoch)
            before = epoch * passes * self.extra.steps_per_epoch
        first, start = divmod(before + start, self.extra.steps_per_epoch)
        yield from self.extra.epoch(first, start)
        for number in itertools.count(first + 1):
            yield from self.extra.epoch(number)
