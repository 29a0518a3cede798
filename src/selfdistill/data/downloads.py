"""Data sets that torchvision downloads."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core import ResourceError
from . import box_folders, mask_folders, voc
from .in_memory import InMemoryImages
from .mask_values import MaskClasses
from .option_checks import ImageSize
from .splits import DatasetSplits, MeanStd


class _Download(NamedTuple):
    """A data set for classification."""

    reader: str  # name of torchvision's class
    by_split: bool  # whether it takes split="train" in place of train=True
    flip: bool
    mean_std: MeanStd | None = None


CLASSIFICATION = {
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
"""Data sets by name."""
_VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
_VOC_DETECTION = (
    ("train", "2007", "trainval"),
    ("train", "2012", "trainval"),
    ("test", "2007", "test"),
)


def classification_splits(name: str, root: Path) -> DatasetSplits:
    """A data set of `CLASSIFICATION`, in memory."""
    source = CLASSIFICATION[name]
    train, test = (
        _download(
            name,
            root,
            source.reader,
            **({"split": s} if source.by_split else {"train": s == "train"}),
        )
        for s in ("train", "test")
    )
    train_images, test_images = _in_memory(train), _in_memory(test)
    names = getattr(train, "classes", range(int(train_images.labels.max()) + 1))
    return DatasetSplits(
        train_images, None, test_images, [str(n) for n in names], source.flip, source.mean_std
    )


def voc_segmentation(
    root: Path, image_size: ImageSize | None, ignore_index: int | None
) -> DatasetSplits:
    """PASCAL VOC 2012: 1,464 training images; the validation split serves as the test split."""
    files = {}
    for split, voc_split in (("train", "train"), ("test", "val")):
        dataset = _download("voc", root, "VOCSegmentation", image_set=voc_split)
        files[split] = ([Path(p) for p in dataset.images], [Path(p) for p in dataset.targets])
    classes = MaskClasses(list(_VOC_CLASSES), list(range(len(_VOC_CLASSES))))
    return mask_folders.read_mask_pairs(root, files, classes, image_size, ignore_index)


def voc_detection(
    root: Path, image_size: ImageSize | None, empty_images: str, invalid_boxes: str
) -> DatasetSplits:
    """PASCAL VOC as detectors are compared on it.

    16,551 images of 2007 and 2012 for training, and the 4,952 test images of 2007.
    """
    files: dict[str, voc.Files] = {}
    for split, year, voc_split in _VOC_DETECTION:
        dataset = _download("voc", root, "VOCDetection", year=year, image_set=voc_split)
        images, annotations = files.get(split, ((), ()))
        files[split] = (
            [*images, *(Path(p) for p in dataset.images)],
            [*annotations, *(Path(p) for p in dataset.targets)],
        )
    annotated = voc.read_annotations(files, list(_VOC_CLASSES[1:]))
    return box_folders.letterboxed_splits(
        annotated, "Pascal VOC", image_size, empty_images, invalid_boxes
    )


def _download(name: str, root: Path, reader: str, **split: Any) -> Any:
    """A split of one of torchvision's data sets, downloaded if it is missing."""
    import torchvision  # takes seconds: only those who ask for it wait

    try:
        root.mkdir(parents=True, exist_ok=True)
        return getattr(torchvision.datasets, reader)(root, download=True, **split)
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResourceError(
            f"cannot get '{name}' ({reason}); place the files of torchvision's {reader} in "
            f"{root}, or give the images as folder:PATH or npz:FILE"
        ) from error


def _in_memory(dataset: Any) -> InMemoryImages:
    """A torchvision data set, which keeps its arrays in one of three layouts."""
    images = torch.from_numpy(np.ascontiguousarray(dataset.data))
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[1] != 3:
        images = images.permute(0, 3, 1, 2).contiguous()
    labels: Tensor = torch.as_tensor(vars(dataset).get("targets", vars(dataset).get("labels")))
    return InMemoryImages(images, labels.long())
