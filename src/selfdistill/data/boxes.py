"""Pictures with boxes, in whichever of three layouts they lie."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core import DataError, nearest
from . import coco, voc, yolo
from .box_table import (
    Annotated,
    Sheet,
    boxes,
    checked,
)
from .class_folders import IMAGENET
from .images import Folder, Images
from .letterbox import Letterboxed
from .splits import Parts, last_word

EMPTY = ("keep", "refuse", "missing")
"""What to do with pictures without an object; the last keeps those without annotation, too."""
FAULTY = ("refuse", "fix")
"""What to do with boxes that have no area or reach out of their picture."""
ZOOM = 1.5  # YOLOv5's enlargement; its inverse halves no object, which may be small already
_LARGEST = 640  # the longer side where none is asked for
_STEP = 32  # of a side: the stride of most detectors
_IN_MEMORY = 4 << 30  # bytes of decoded pictures that are kept


class _Layout(NamedTuple):
    name: str
    recognized: Callable[[Path], bool]
    read: Callable[[Path, bool], Annotated]
    shown: str


_LAYOUTS = (
    _Layout("COCO", coco.recognized, coco.read, coco.SHOWN),
    _Layout("Pascal VOC", voc.recognized, voc.read, voc.SHOWN),
    _Layout("YOLO", yolo.recognized, yolo.read, yolo.SHOWN),
)


def read(
    path: Path, *, image_size: int | None = None, empty: str = "keep", faulty: str = "refuse"
) -> Parts:
    """Find out the layout of a folder and read it: see `coco.read`, `voc.read` and `yolo.read`.

    With `train` and `val` alone, `val` becomes the test part, as in class folders.

    Args:
        path: the folder.
        image_size: side of the square that all pictures are letterboxed into; none takes the
            smallest frame with sides of a multiple of 32 that holds all of them, those of more
            than 640 pixels shrunk to that.
        empty: "keep" pictures without an object, "refuse" them, or keep even those whose
            annotation is "missing".
        faulty: "refuse" boxes that have no area or reach out of their picture by more than a
            pixel, or "fix" them: leave out the first and clip the second.

    Raises:
        DataError: no such folder, none of the layouts, or what is wrong with its files.
    """
    if not path.is_dir():
        beside = (p.name for p in path.parent.iterdir()) if path.parent.is_dir() else ()
        raise DataError(f"there is no folder {path}{nearest(path.name, beside, list_all=False)}")
    layout = _layout(path)
    if layout is None:
        raise _unknown(path)
    return framed(layout.read(path, empty == "missing"), layout.name, image_size, empty, faulty)


def recognized(path: Path) -> bool:
    """Whether there are pictures with boxes in one of the layouts."""
    return _layout(path) is not None


def _layout(path: Path) -> _Layout | None:
    return next((each for each in _LAYOUTS if each.recognized(path)), None)


def _unknown(path: Path) -> DataError:
    inner = path / "train" if (path / "train").is_dir() else path
    if any(p.suffix for folder in inner.iterdir() if folder.is_dir() for p in folder.glob("*.*")):
        hint = "; if these are folders of classes, leave out --task"
    else:
        hint = ""
    known = "; ".join(f"{layout.name} ({layout.shown})" for layout in _LAYOUTS)
    return DataError(f"{path} is in none of the layouts for boxes: {known}{hint}")


def framed(found: Annotated, layout: str, image_size: int | None, empty: str, faulty: str) -> Parts:
    """Pictures of annotated parts, letterboxed, not yet decoded."""
    parts = sorted(found.sheets, key=("train", "val", "test").index)
    sheets = {part: checked(found.sheets[part], faulty, empty) for part in parts}
    if not len(sheets["train"].owners):
        raise DataError("there is no object in any of the training pictures")
    size = (image_size, image_size) if image_size else _frame(sheets)
    images = {
        part: Letterboxed(sheet.paths, boxes(sheet, size), sheet.sizes)
        for part, sheet in sheets.items()
    }
    val, test = last_word(images.get("val"), images.get("test"))
    return Parts(images["train"], val, test, found.names, True, IMAGENET, layout)


def _frame(sheets: Mapping[str, Sheet]) -> tuple[int, int]:
    sizes = np.concatenate([sheet.sizes for sheet in sheets.values()])
    shrunk = sizes * np.minimum(1, _LARGEST / sizes.max(1, keepdims=True))
    height, width = (int(np.ceil(side / _STEP - 1e-6)) * _STEP for side in shrunk.max(0))
    return height, width


def settle(parts: Mapping[str, Folder]) -> Mapping[str, Images]:
    """Keep the pictures in memory if they fit into 4 GiB."""
    needed = sum(len(part) * int(np.prod(part.shape)) for part in parts.values())
    if needed > _IN_MEMORY:
        return parts
    return {name: part.resident() for name, part in parts.items()}
