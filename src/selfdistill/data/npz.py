"""Images from one .npz file in MedMNIST's layout (https://medmnist.com)."""

import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..core import DataError, nearest
from .clips import ClipLength, InMemoryClips
from .in_memory import InMemoryImages
from .parts import SPLITS, split_of_name
from .splits import DatasetSplits
from .text_files import numbered_classes

Array = npt.NDArray[np.generic]
_MAX_BYTES = 16 << 30  # of all arrays
_KINDS = {
    "images": "images",
    "clips": "images",
    "videos": "images",
    "x": "images",
    "labels": "labels",
    "y": "labels",
}
_UNLABELED = ("images", "train_images", "x_train")
_NAMES = [f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")]
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_BROKEN = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError,
    SyntaxError, tokenize.TokenError, RecursionError, MemoryError, TypeError, KeyError,
)  # fmt: skip


def read_npz(path: Path, clip: ClipLength | None = None) -> DatasetSplits:
    """Read `train_images`, `train_labels` and, where they exist, `val_…` and `test_…`.

    The parts may have other usual names (see `split_of_name`), and `x_train` with `y_train` is
    read, too.

    Images are (N, H, W) or (N, H, W, 3) uint8, labels (N,) or (N, 1) integers from 0. Optional
    `class_names` (K,) names the classes. Images are not flipped by default.

    Args:
        path: of the file.
        clip: of videos (N, L, H, W) or (N, L, H, W, 3), `train_clips`: the frames of a clip.

    Raises:
        DataError: an invalid file or array, by its name.
    """
    arrays = _load_arrays(path, _known_names)
    train = _split(path, arrays, "train", clip)
    names = [str(n) for n in arrays["class_names"].ravel()] if "class_names" in arrays else []
    classes = numbered_classes(train.labels, names, path, "train_labels", "class_names")
    others = {}
    for split in ("val", "test"):
        if f"{split}_images" in arrays:
            others[split] = _split(path, arrays, split, clip)
            _check_compatible(path, split, others[split], train, len(classes))
    return DatasetSplits(train, others.get("val"), others.get("test"), classes, flip=False)


def read_npz_images(path: Path) -> InMemoryImages:
    """Read the array `images`, or else `train_images` or `x_train`, without any labels.

    Raises:
        DataError: an invalid file or array.
    """
    ((name, images),) = _load_arrays(path, _unlabeled_name).items()
    planes = _planes(path, name, images)
    return InMemoryImages(planes, torch.zeros(len(planes), dtype=torch.int64))


def read_npz_pictures(path: Path) -> DatasetSplits:
    """Read the images of all parts, or `images` alone, as training without labels takes them.

    Labels, where there are any, are kept to stratify what is held out.

    Raises:
        DataError: an invalid file or array.
    """
    arrays = _load_arrays(path, _picture_names)
    splits: dict[str, InMemoryImages] = {}
    for split in (split for split in SPLITS if f"{split}_images" in arrays):
        planes = _planes(path, f"{split}_images", arrays[f"{split}_images"])
        labels = arrays.get(f"{split}_labels")
        strata = torch.zeros(len(planes), dtype=torch.int64)
        if labels is not None:
            strata = _labels(path, split, labels, len(planes))
        splits[split] = InMemoryImages(planes, strata)
        _check_shape(path, split, splits[split], splits["train"])
    return DatasetSplits(splits["train"], splits.get("val"), splits.get("test"), [], flip=False)


def _picture_names(path: Path, members: list[str]) -> dict[str, str]:
    """The arrays that are read of an archive whose labels may be missing."""
    if "images.npy" in members:
        return {"images.npy": "train_images"}
    names = _known_names(path, members)
    if "train_images" not in names.values():
        raise DataError(
            f"{path} has no array 'images' or 'train_images'; rename that of the images"
        )
    return names


def _unlabeled_name(path: Path, members: list[str]) -> dict[str, str]:
    stored = {member.removesuffix(".npy"): member for member in members}
    name = next((name for name in _UNLABELED if name in stored), None)
    if name is None:
        raise DataError(
            f"{path} has no array 'images' or 'train_images'; rename that of the images"
        )
    return {stored[name]: name}


def _load_arrays(
    path: Path, names_of: Callable[[Path, list[str]], dict[str, str]]
) -> dict[str, Array]:
    if os.path.lexists(path) and not os.path.isfile(path):
        raise DataError(f"{path} is no file; give the .npz file")
    if not os.path.isfile(path):
        siblings = path.parent.glob("*.npz") if os.path.isdir(path.parent) else ()
        hint = nearest(path.name, (p.name for p in siblings), list_all=False)
        raise DataError(f"there is no file {path}{hint}")
    try:
        with path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise DataError(
                    f"{path} is one bare array; np.savez keeps several with their names"
                )
            with zipfile.ZipFile(file) as archive:
                names = names_of(path, archive.namelist())
                _check_claimed_sizes(path, archive, names)
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            return {name: loaded[member] for member, name in names.items()}
    except DataError:
        raise
    except _BROKEN as error:
        reason = "an array of Python objects" if "allow_pickle" in str(error) else str(error)
        raise DataError(
            f"cannot read {path} ({reason}); save plain uint8 and integer arrays by np.savez"
        ) from None


def _known_names(path: Path, members: list[str]) -> dict[str, str]:
    """The arrays that are read of those in a file: {member: name}, such as `val_images`."""
    names: dict[str, str] = {}
    for member in members:
        stored = member.removesuffix(".npy")
        part, _, kind = stored.rpartition("_")
        if kind not in _KINDS:
            kind, _, part = stored.partition("_")
        if stored == "class_names":
            names[member] = stored
        elif kind in _KINDS:
            name = f"{split_of_name(part)}_{_KINDS[kind]}"
            if not split_of_name(part):
                whole = f" (did you mean 'train_{_KINDS[kind]}'?)"  # of a set without parts
                hint = nearest(stored, _NAMES) if part else whole
                raise DataError(
                    f"the array '{stored}' in {path} is of no known part{hint}; rename it"
                )
            if name in names.values():
                raise DataError(f"two arrays in {path} are the {name}; keep one of them")
            names[member] = name
    return names


def _check_claimed_sizes(path: Path, archive: zipfile.ZipFile, members: Iterable[str]) -> None:
    """Raises `DataError` if the arrays would take too much memory, or headers and sizes differ."""
    total = 0
    for member in members:
        info = archive.getinfo(member)
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = _HEADERS.get(version)
            if read is None:
                raise ValueError(f"{member} is of the unknown version {version}")
            shape, _, dtype = read(file)
            size = math.prod(shape) * dtype.itemsize
            if not dtype.hasobject and (size < 0 or file.tell() + size != info.file_size):
                raise ValueError(f"{member} is not of the size that its header gives")
        total += info.file_size
    if total > _MAX_BYTES:
        raise DataError(
            f"the arrays in {path} take {total >> 30:,} GiB and 16 are the most; give the images "
            "as folder:PATH"
        )


def _split(
    path: Path, arrays: dict[str, Array], split: str, clip: ClipLength | None
) -> InMemoryImages:
    for name in (f"{split}_images", f"{split}_labels"):
        if name not in arrays:
            raise DataError(f"{path} has no array '{name}'{nearest(name, arrays)}")
    images, length = arrays[f"{split}_images"], 1
    if clip:
        name = f"{split}_clips in {path}"
        if images.ndim not in (4, 5):
            raise DataError(
                f"{name} have the shape {images.shape}; it must be (N, L, H, W) or (N, L, H, W, 3)"
            )
        length = images.shape[1]
        images = images.reshape(-1, *images.shape[2:])
    planes = _planes(path, f"{split}_images", images)
    count = len(planes) // length
    labels = _labels(path, split, arrays[f"{split}_labels"], count)
    if clip:
        return InMemoryClips(planes, torch.full((count,), length), labels, clip)
    return InMemoryImages(planes, labels)


def _planes(path: Path, name: str, images: Array) -> Tensor:
    """An array of images, (N, C, H, W) uint8."""
    if images.dtype != np.uint8:
        raise DataError(f"{name} in {path} is {images.dtype}; it must be uint8 with values 0 … 255")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise DataError(
            f"{name} in {path} has the shape {images.shape}; it must be (N, H, W) or (N, H, W, 3), "
            "or with --task clips (N, L, H, W) or (N, L, H, W, 3)"
        )
    if not images.size:
        raise DataError(f"{name} in {path} has the shape {images.shape}: there is no image in it")
    planes = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(planes))


def _labels(path: Path, split: str, labels: Array, count: int) -> Tensor:
    name = f"{split}_labels in {path}"
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{name} is {labels.dtype}; it must hold integers from 0")
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise DataError(
            f"{name} has {labels.shape[1]} numbers per image; one is wanted, the class: of "
            "one-hot rows labels.argmax(1)"
        )
    if labels.shape not in ((count,), (count, 1)):
        raise DataError(
            f"{name} has the shape {labels.shape}; for {count} images it must be ({count},)"
        )
    if labels.min() < 0 or labels.max() > np.iinfo(np.int64).max:
        invalid = labels.min() if labels.min() < 0 else labels.max()
        raise DataError(f"{name} has the label {invalid}; labels count from 0")
    return torch.from_numpy(labels.reshape(-1).astype(np.int64))


def _check_compatible(
    path: Path, split: str, images: InMemoryImages, train: InMemoryImages, classes: int
) -> None:
    _check_shape(path, split, images, train)
    if images.labels.max() >= classes:
        raise DataError(
            f"{split}_labels in {path} has the label {int(images.labels.max())}; "
            f"the training labels go from 0 to {classes - 1}"
        )


def _check_shape(path: Path, split: str, images: InMemoryImages, train: InMemoryImages) -> None:
    if images.shape != train.shape:
        raise DataError(
            f"{split}_images in {path} are {_shape_in_words(images)} but train_images are "
            f"{_shape_in_words(train)}; resize both to one size"
        )


def _shape_in_words(images: InMemoryImages) -> str:
    channels, *sides = images.shape
    return f"{'×'.join(map(str, sides))} with {channels} channel{'s' if channels > 1 else ''}"
