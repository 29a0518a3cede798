"""The splits of a data set as its source has them."""

import os
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..core import DataError, nearest
from .image_set import ImageSet
from .listing import LABEL_TABLES

MeanStd = tuple[tuple[float, ...], tuple[float, ...]]
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_MAX_NAMES = 10
T = TypeVar("T", bound=ImageSet)


class DatasetSplits(NamedTuple):
    """A data set as its source has it, before hold-out, subsampling and resizing.

    Attributes:
        train, val, test: the splits of the source itself; all of one class.
        classes: names, in the order of the labels.
        flip: whether a mirrored image keeps its meaning.
        mean_std: published mean and standard deviation per channel; None to compute them.
        layout: name of the annotation layout; "" where a task has one only.
        notes: what a user should know of how the data were read.
    """

    train: ImageSet
    val: ImageSet | None
    test: ImageSet | None
    classes: list[str]
    flip: bool
    mean_std: MeanStd | None = None
    layout: str = ""
    notes: tuple[str, ...] = ()


def promote_val_to_test(val: T | None, test: T | None) -> tuple[T | None, T | None]:
    """Validation and test split; without a test split the validation split takes its place.

    This is the custom where the labels of the test images are not public (ImageNet, COCO, VOC
    2012). A validation split is then to be held out of the training images.
    """
    return (None, val) if test is None else (val, test)


def check_folder(path: Path) -> None:
    """Raises `DataError` if there is no such folder."""
    if os.path.lexists(path) and not os.path.isdir(path):
        table, packed = (path.suffix.lower() in endings for endings in (LABEL_TABLES, _ARCHIVES))
        remedy = "unpack it and give the folder" if packed else "give the folder of the images"
        remedy = f"give csv:{path}" if table else remedy
        raise DataError(f"{path} is no folder; {remedy}")
    if not os.path.isdir(path):
        siblings = (p.name for p in path.parent.iterdir()) if os.path.isdir(path.parent) else ()
        place = "" if path.is_absolute() else f" in {Path.cwd()}"
        hint = nearest(path.name, siblings, list_all=False)
        raise DataError(f"there is no folder {path}{place}{hint}")


def absent_classes(splits: DatasetSplits) -> tuple[str, ...]:
    """Notes on held-out parts of a data set that lack some of its classes of images."""
    notes = []
    for part, images in (("validation", splits.val), ("test", splits.test)):
        if images is None or images.targets.unit != "images":
            continue
        counts = images.targets.counts(len(splits.classes)).tolist()
        lacking = [name for name, count in zip(splits.classes, counts, strict=True) if not count]
        if len(lacking) not in (0, len(counts)):  # all where no label is read
            named = ", ".join(f"'{name}'" for name in lacking[:_MAX_NAMES])
            more = ", …" if len(lacking) > _MAX_NAMES else ""
            notes.append(
                f"the {part} part has no picture of {len(lacking)} of {len(counts)} classes: "
                f"{named}{more}"
            )
    return tuple(notes)
