"""Pictures in one folder per class."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..core import DataError, nearest
from .images import Folder, Images
from .splits import Moments, Parts, last_word

IMAGENET: Moments = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_ANNOTATIONS = "val_annotations.txt"
_SIZE = 224  # where pictures differ in size and none is asked for
_ZOOM = 256 / 224
_IN_MEMORY = 2 << 30  # bytes of decoded pictures that are kept


def read(path: Path) -> Parts:
    """Find the pictures below a folder; nothing is decoded yet.

    Either PATH holds one folder per class, or PATH/train does, with PATH/val or PATH/test beside
    it. With `train`, `val` and `test` all three are used. With `train` and `val` alone, `val`
    becomes the test part, as is the custom where the labels of the test images are not public
    (ImageNet, TinyImageNet), and a validation part is to be held out of `train`. TinyImageNet's
    `val/images` with `val/val_annotations.txt` is understood, its unlabeled `test` left out.

    Classes are the sorted names of the folders; pictures may lie in folders further below.

    Raises:
        DataError: no folder, no picture in a class, fewer than two classes, unknown classes.
    """
    if not path.is_dir():
        beside = (p.name for p in path.parent.iterdir()) if path.parent.is_dir() else ()
        raise DataError(f"there is no folder {path}{nearest(path.name, beside, list_all=False)}")
    split = (path / "train").is_dir()
    root = path / "train" if split else path
    classes = _subfolders(root)
    train = _labeled(root, classes)
    _check(root, train, classes)
    others = {
        part: _labeled(path / part, classes)
        for part in ("val", "test")
        if split and _has_labels(path / part, classes)
    }
    val, test = last_word(others.get("val"), others.get("test"))
    return Parts(train, val, test, classes, flip=True)


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


def _labeled(folder: Path, classes: list[str]) -> Folder:
    """The pictures of one part with their labels, in sorted order."""
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
            pairs += [(picture, known[name]) for picture in _pictures(folder / name)]
    if not pairs:
        raise DataError(
            f"there is no picture in class folders below {folder}; "
            f"it needs FOLDER/CLASS/PICTURE with one of {', '.join(IMG_EXTENSIONS)}"
        )
    paths, labels = zip(*pairs, strict=True)
    return Folder(paths, torch.tensor(labels), (_SIZE, _SIZE), _ZOOM)


def _pictures(folder: Path) -> list[str]:
    return sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith("._")
    )


def _annotated(folder: Path, classes: list[str]) -> list[tuple[str, int]]:
    """TinyImageNet's validation part: lines of picture, class and a bounding box, tab-separated."""
    known = {name: label for label, name in enumerate(classes)}
    pairs = []
    for line in (folder / _ANNOTATIONS).read_text().splitlines():
        picture, name = [*line.split("\t"), ""][:2]
        if name not in known:
            raise DataError(
                f"{folder / _ANNOTATIONS} gives {picture} the class '{name}', "
                f"which the training set lacks{nearest(name, classes)}"
            )
        pairs.append((str(folder / "images" / picture), known[name]))
    return sorted(pairs)


def _check(root: Path, train: Folder, classes: list[str]) -> None:
    counts = torch.bincount(train.labels, minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if not count:
            raise DataError(f"there is no picture in {root / name}; add some or remove the folder")
    if len(classes) < 2:
        raise DataError(f"{root} has the one class '{classes[0]}'; two class folders are the least")


def settle(parts: Mapping[str, Folder], image_size: int | None) -> Mapping[str, Images]:
    """Decide on the size of the pictures, and keep them in memory if they fit into 2 GiB.

    Without `image_size` pictures of one common size keep it; others are brought to 224 × 224.
    In memory the whole shorter side of a picture is kept; streamed, 224/256 of it.
    """
    common = None if image_size else common_size(parts.values())
    size = common or (image_size or _SIZE, image_size or _SIZE)
    if sum(map(len, parts.values())) * 3 * size[0] * size[1] <= _IN_MEMORY:
        return {name: part.at(size, 1.0).resident() for name, part in parts.items()}
    return {name: part.at(size, _ZOOM) for name, part in parts.items()}


def common_size(parts: Iterable[Folder]) -> tuple[int, int] | None:
    """Height and width that all pictures share; stops at the first that differs."""
    size = None
    for part in parts:
        for place in range(len(part)):
            found = part.stored_size(place)
            if size not in (None, found):
                return None
            size = found
    return size
