"""Folders of images with one folder per class."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..core import DataError, nearest
from .images import ImageFiles, ImageSet
from .splits import DatasetSplits, MeanStd, check_folder, promote_val_to_test

IMAGENET: MeanStd = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_ANNOTATIONS = "val_annotations.txt"
_SIZE = 224  # by default, where images differ in size
_RESIZE_RATIO = 256 / 224
_IN_MEMORY = 2 << 30  # bytes of decoded images that are kept


def read_class_folders(path: Path) -> DatasetSplits:
    """List the images below a folder, without decoding them.

    Either PATH holds one folder per class, or PATH/train does, with PATH/val or PATH/test next to
    it. With `train`, `val` and `test` all three are used. With `train` and `val` alone, `val`
    becomes the test split, as is the custom where the labels of the test images are not public
    (ImageNet, TinyImageNet), and a validation split is to be held out of `train`. TinyImageNet's
    `val/images` with `val/val_annotations.txt` is supported, its unlabeled `test` left out.

    Classes are the sorted names of the folders; images may lie in folders further below.

    Raises:
        DataError: no folder, no image in a class, fewer than two classes, unknown classes.
    """
    check_folder(path)
    has_splits = (path / "train").is_dir()
    root = path / "train" if has_splits else path
    classes = _subfolders(root)
    train = _labeled(root, classes)
    _check_classes(root, train, classes)
    others = {
        split: _labeled(path / split, classes)
        for split in ("val", "test")
        if has_splits and _has_labels(path / split, classes)
    }
    val, test = promote_val_to_test(others.get("val"), others.get("test"))
    return DatasetSplits(train, val, test, classes, flip=True)


def _subfolders(folder: Path) -> list[str]:
    return sorted(
        p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))
    )


def _has_labels(folder: Path, classes: list[str]) -> bool:
    if not folder.is_dir():
        return False
    return (
        (folder / _ANNOTATIONS).is_file()
        or _subfolders(folder) != ["images"]
        or "images" in classes
    )


def _labeled(folder: Path, classes: list[str]) -> ImageFiles:
    """The images of one split with their labels, sorted."""
    if (folder / _ANNOTATIONS).is_file():
        pairs = _annotated(folder, classes)
    else:
        known = {name: label for label, name in enumerate(classes)}
        pairs = []
        for name in _subfolders(folder):
            if name not in known:
                raise DataError(
                    f"{folder / name} is no class of the training set{nearest(name, classes)}"
                )
            pairs += [(file, known[name]) for file in image_files(folder / name)]
    if not pairs:
        raise DataError(
            f"there is no picture in class folders below {folder}; "
            f"it needs FOLDER/CLASS/PICTURE with one of {', '.join(IMG_EXTENSIONS)}"
        )
    paths, labels = zip(*pairs, strict=True)
    return ImageFiles(paths, torch.tensor(labels), (_SIZE, _SIZE), _RESIZE_RATIO)


def image_files(folder: Path) -> list[str]:
    """The images in a folder and the folders below it, sorted."""
    return sorted(
        os.path.join(directory, name)
        for directory, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith("._")
    )


def _annotated(folder: Path, classes: list[str]) -> list[tuple[str, int]]:
    """TinyImageNet's validation split: lines of file, class and a bounding box, tab-separated."""
    known = {name: label for label, name in enumerate(classes)}
    pairs = []
    for line in (folder / _ANNOTATIONS).read_text().splitlines():
        file, name = [*line.split("\t"), ""][:2]
        if name not in known:
            raise DataError(
                f"{folder / _ANNOTATIONS} gives {file} the class '{name}', "
                f"which the training set lacks{nearest(name, classes)}"
            )
        pairs.append((str(folder / "images" / file), known[name]))
    return sorted(pairs)


def _check_classes(root: Path, train: ImageFiles, classes: list[str]) -> None:
    counts = torch.bincount(train.labels, minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if not count:
            raise DataError(f"there is no picture in {root / name}; add some or remove the folder")
    if len(classes) < 2:
        raise DataError(f"{root} has the one class '{classes[0]}'; two class folders are the least")


def load_or_stream(
    splits: Mapping[str, ImageFiles], image_size: int | None
) -> Mapping[str, ImageSet]:
    """Set the size of the images, and decode them into memory if they fit into 2 GiB.

    Without `image_size` images of one common size keep it; others are resized to 224 × 224. In
    memory the whole shorter side of an image is kept; streamed, 224/256 of it.
    """
    common = None if image_size else common_size(splits.values())
    size = common or (image_size or _SIZE, image_size or _SIZE)
    if sum(map(len, splits.values())) * 3 * size[0] * size[1] <= _IN_MEMORY:
        return {s: files.with_size(size, 1.0).load_into_memory() for s, files in splits.items()}
    return {s: files.with_size(size, _RESIZE_RATIO) for s, files in splits.items()}


def common_size(splits: Iterable[ImageFiles]) -> tuple[int, int] | None:
    """Height and width that all images share, or None; stops at the first that differs."""
    size = None
    for files in splits:
        for index in range(len(files)):
            stored = files.stored_size(index)
            if size not in (None, stored):
                return None
            size = stored
    return size
