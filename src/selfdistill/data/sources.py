"""Data sets by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor

from ..core import ConfigError, DataError, ResourceError, nearest
from . import boxes, class_folders, masks, npz, voc
from .hold_out import hold_out, hold_out_share, limited
from .images import Folder, ImageData, Resident
from .splits import Moments, Parts

CACHE = Path("~/.cache/selfdistill")
_DIGITS_TEST = 360


class _Download(NamedTuple):
    """A data set that torchvision fetches."""

    reader: str  # the name of torchvision's class
    by_split: bool  # it takes split="train", not train=True
    flip: bool
    moments: Moments | None = None


_DOWNLOADS = {
    "cifar10": _Download(
        "CIFAR10", False, True, ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    ),
    "cifar100": _Download(
        "CIFAR100", False, True, ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
    ),
    "fashion_mnist": _Download("FashionMNIST", False, True),
    "mnist": _Download("MNIST", False, False),
    "stl10": _Download("STL10", True, True),
    "svhn": _Download("SVHN", True, False),
}
_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
_VOC_PARTS = (
    ("train", "2007", "trainval"),
    ("train", "2012", "trainval"),
    ("test", "2007", "test"),
)
_FILES: dict[str, Callable[[Path], Parts]] = {"folder": class_folders.read, "npz": npz.read}
_ZOOM = {"segmentation": masks.ZOOM, "detection": boxes.ZOOM}
SOURCES = {
    "classification": ("digits", *_DOWNLOADS, "folder:PATH", "npz:FILE"),
    "segmentation": ("voc", "folder:PATH"),
    "detection": ("voc", "folder:PATH"),
}
"""By task: names, and what takes a path."""


def load(
    name: str,
    *,
    root: Path | str = CACHE,
    val: float = 0.1,
    image_size: int | None = None,
    limit: int | None = None,
    task: str = "classification",
    ignore: int | None = None,
    empty: str = "keep",
    faulty: str = "refuse",
) -> ImageData:
    """Load a data set and split it; the same call gives the same parts on every machine.

    A source that has its own validation part keeps it. Otherwise `val` of the training images is
    held out, every class by its share, always the same images whatever the seed of a run.

    Args:
        name: `digits` (no download), a set that torchvision fetches, `folder:PATH` with one folder
            per class (see `class_folders.read` for train, val and test), or `npz:FILE` in
            MedMNIST's layout. For segmentation `voc`, or `folder:PATH` as `masks.read` takes it;
            for detection the same, as `boxes.read` does.
        root: where downloads are kept.
        val: share of the training images held out for validation; 0 for none.
        image_size: height and width to bring all images to; images with boxes keep their shape,
            and gray fills the rest.
        limit: most training images to keep, every class by its share, after `val` was taken.
        task: what the targets are for, a key of `SOURCES`.
        ignore: value of a mask that is no class, besides 255.
        empty: one of `boxes.EMPTY`: what to do with images without an object.
        faulty: one of `boxes.FAULTY`: what to do with boxes that cannot be right.

    Raises:
        ConfigError: an option out of its range.
        DataError: an unknown name, or data that is missing, corrupt or does not fit.
        ResourceError: a download that failed.
    """
    _check_options(val, image_size, limit)
    _check_words(empty, faulty)
    _check_task(name, task)
    place = Path(root).expanduser()
    if task == "segmentation":
        parts = _masked(name, place, image_size, ignore)
    elif task == "detection":
        parts = _boxed(name, place, image_size, empty, faulty)
    else:
        parts = _read(name, place)
    train, held = parts.train, parts.val
    if held is None:
        train, held = hold_out_share(train, val)
    parts = parts._replace(train=limited(train, limit), val=held)
    return _finished(name, _resized(parts, image_size, task), task)


def _check_task(name: str, task: str) -> None:
    """Raises `DataError` if a folder holds what another task is trained on."""
    kind, _, path = name.partition(":")
    place = Path(path).expanduser()
    holds = {"segmentation": masks.recognized, "detection": boxes.recognized}
    if kind != "folder" or not path or (task in holds and holds[task](place)):
        return
    for other, recognized in holds.items():
        if recognized(place):
            what = "masks" if other == "segmentation" else "boxes"
            raise DataError(f"{place} holds images with {what}; give --task {other}")


def _check_words(empty: str, faulty: str) -> None:
    for option, word, known in (("empty", empty, boxes.EMPTY), ("faulty", faulty, boxes.FAULTY)):
        if word not in known:
            raise ConfigError(f"{option}='{word}' is unknown{nearest(word, known)}")


def _check_options(val: float, image_size: int | None, limit: int | None) -> None:
    if not 0 <= val < 1:
        raise ConfigError(f"val={val:g} is no share of the training images; give 0 … 0.99")
    for option, value in (("image_size", image_size), ("limit", limit)):
        if value is not None and value < 1:
            raise ConfigError(f"{option}={value} must be 1 or more; leave it out for the whole")


def _read(name: str, root: Path) -> Parts:
    kind, _, path = name.partition(":")
    if path and kind in _FILES:
        return _FILES[kind](Path(path).expanduser())
    if name == "digits":
        return _digits()
    if name in _DOWNLOADS:
        return _downloaded(name, root)
    raise _unknown(name, "classification")


def _unknown(name: str, task: str) -> DataError:
    folder = Path(name).is_dir()
    hint = f" (did you mean 'folder:{name}'?)" if folder else nearest(name, SOURCES[task])
    return DataError(f"there is no data set '{name}' for {task}{hint}")


def _masked(name: str, root: Path, image_size: int | None, ignore: int | None) -> Parts:
    kind, _, path = name.partition(":")
    if path and kind == "folder":
        return masks.read(Path(path).expanduser(), image_size=image_size, ignore=ignore)
    if name == "voc":
        return _voc(root, image_size, ignore)
    raise _unknown(name, "segmentation")


def _voc(root: Path, image_size: int | None, ignore: int | None) -> Parts:
    """PASCAL VOC 2012: 1,464 pictures to train on; its validation part has the last word."""
    files = {}
    for part, split in (("train", "train"), ("test", "val")):
        found = _fetched("voc", root, "VOCSegmentation", image_set=split)
        files[part] = ([Path(p) for p in found.images], [Path(p) for p in found.targets])
    return masks.paired(root, files, list(_VOC), image_size, ignore)


def _boxed(name: str, root: Path, image_size: int | None, empty: str, faulty: str) -> Parts:
    kind, _, path = name.partition(":")
    if path and kind == "folder":
        place = Path(path).expanduser()
        return boxes.read(place, image_size=image_size, empty=empty, faulty=faulty)
    if name == "voc":
        annotated = voc.annotated(_voc_files(root), list(_VOC[1:]))
        return boxes.framed(annotated, "Pascal VOC", image_size, empty, faulty)
    raise _unknown(name, "detection")


def _voc_files(root: Path) -> dict[str, voc.Files]:
    """PASCAL VOC as detectors are compared on it.

    16,551 pictures of 2007 and 2012 to train on, and the 4,952 test pictures of 2007.
    """
    files: dict[str, voc.Files] = {}
    for part, year, split in _VOC_PARTS:
        found = _fetched("voc", root, "VOCDetection", year=year, image_set=split)
        paths = [Path(p) for p in found.images], [Path(p) for p in found.targets]
        images, pages = files.get(part, ((), ()))
        files[part] = ([*images, *paths[0]], [*pages, *paths[1]])
    return files


def _digits() -> Parts:
    """1797 handwritten digits of UCI, 8 × 8 pixels of 0 … 16; 360 are the test part.

    Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49; see `digits.md` beside the file.
    """
    with np.load(Path(__file__).with_name("digits.npz")) as digits:
        pixels, labels = digits["images"].astype(np.float64), digits["labels"].astype(np.int64)
    gray = torch.from_numpy(pixels * (255 / 16)).round().to(torch.uint8)[:, None]
    train, test = hold_out(Resident(gray, torch.from_numpy(labels)), _DIGITS_TEST, "test")
    return Parts(train, None, test, [str(d) for d in range(10)], flip=False)


def _downloaded(name: str, root: Path) -> Parts:
    source = _DOWNLOADS[name]
    train, test = (
        _fetched(
            name,
            root,
            source.reader,
            **({"split": p} if source.by_split else {"train": p == "train"}),
        )
        for p in ("train", "test")
    )
    first, second = _resident(train), _resident(test)
    names = getattr(train, "classes", range(int(first.labels.max()) + 1))
    return Parts(first, None, second, [str(n) for n in names], source.flip, source.moments)


def _fetched(name: str, root: Path, reader: str, **split: Any) -> Any:
    """A part of one of torchvision's data sets, downloaded if it is not there."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        return getattr(torchvision.datasets, reader)(root, download=True, **split)
    except (OSError, RuntimeError, EOFError, ValueError) as fault:
        reason = (str(fault).splitlines() or [type(fault).__name__])[0]
        raise ResourceError(
            f"cannot get '{name}' ({reason}); place the files of torchvision's {reader} in "
            f"{root}, or give the images as folder:PATH or npz:FILE"
        ) from fault


def _resident(dataset: Any) -> Resident:
    """A torchvision data set, which keeps its arrays in one of three layouts."""
    images = torch.from_numpy(np.ascontiguousarray(dataset.data))
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[1] != 3:
        images = images.permute(0, 3, 1, 2).contiguous()
    labels: Tensor = torch.as_tensor(vars(dataset).get("targets", vars(dataset).get("labels")))
    return Resident(images, labels.long())


def _resized(parts: Parts, image_size: int | None, task: str) -> Parts:
    known = {part: getattr(parts, part) for part in ("train", "val", "test")}
    folders = {part: images for part, images in known.items() if isinstance(images, Folder)}
    settled: dict[str, Any] = {}
    if task == "detection":
        settled |= boxes.settle(folders)
    elif folders:
        settled |= class_folders.settle(folders, image_size)
    for part, images in known.items():
        if isinstance(images, Resident) and image_size:
            settled[part] = images.resized(image_size)
    return parts._replace(**settled)


def _finished(name: str, parts: Parts, task: str) -> ImageData:
    train = parts.train
    streamed = not isinstance(train, Resident)
    mean, std = parts.moments or (
        train.moments() if isinstance(train, Resident) else class_folders.IMAGENET
    )
    zoom = _ZOOM.get(task, 1.0)  # objects in scenes come in all sizes
    return ImageData(
        name,
        train,
        parts.val,
        parts.test,
        parts.classes,
        mean,
        std,
        crop=0 if streamed or zoom > 1 else max(1, min(train.shape[1:]) // 8),
        flip=parts.flip,
        resized_crop=streamed and zoom == 1,
        zoom=zoom,
        task=task,
        layout=parts.layout,
    )
