"""Folders of images with boxes, in the layout of COCO, Pascal VOC or YOLO."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core import DataError
from . import coco, voc, yolo
from .box_table import AnnotatedSplits, BoxTable, check_boxes, letterbox_boxes
from .class_folders import IMAGENET
from .image_set import ImageSet
from .images import ImageFiles, load_splits
from .letterbox import LetterboxedFiles
from .listing import label_list_hint
from .option_checks import ImageSize, both_sides
from .parts import SPLITS
from .splits import DatasetSplits, check_folder, promote_val_to_test

EMPTY_IMAGES = ("keep", "refuse", "missing")
"""Policies for images without an object; the last keeps those without an annotation, too."""
INVALID_BOXES = ("refuse", "fix")
"""Policies for boxes that have no area or reach out of their image."""
MAX_ZOOM = 1.5  # YOLOv5's; its inverse halves no object, which may be small already
_MAX_SIDE = 640  # pixels of the longer side by default
_SIDE_MULTIPLE = 32  # the stride of most detectors
_IN_MEMORY = 4 << 30  # bytes of decoded images that are kept


class _Layout(NamedTuple):
    name: str
    is_layout: Callable[[Path], bool]
    read: Callable[[Path, bool], AnnotatedSplits]
    example: str


_LAYOUTS = (
    _Layout("COCO", coco.is_coco, coco.read_coco, coco.EXAMPLE),
    _Layout("Pascal VOC", voc.is_voc, voc.read_voc, voc.EXAMPLE),
    _Layout("YOLO", yolo.is_yolo, yolo.read_yolo, yolo.EXAMPLE),
)


def read_box_folder(
    path: Path,
    *,
    image_size: ImageSize | None = None,
    empty_images: str = "keep",
    invalid_boxes: str = "refuse",
) -> DatasetSplits:
    """Detect the layout of a folder and read it, see `read_coco`, `read_voc` and `read_yolo`.

    With `train` and `val` alone, `val` becomes the test split, as in class folders.

    Args:
        path: the folder.
        image_size: side of the square that all images are letterboxed into, or height and width
            of the frame; None for the smallest frame that holds them all, with sides of a multiple
            of 32, after images of more than 640 pixels are shrunk to that.
        empty_images: "keep" images without an object, "refuse" them, or keep even those whose
            annotation is "missing".
        invalid_boxes: "refuse" boxes that have no area or reach out of their image by more than a
            pixel, or "fix" them: drop the former and clip the latter.

    Raises:
        DataError: no such folder, none of the layouts, or a file that is invalid.
    """
    check_folder(path)
    layout = _layout(path)
    if layout is None:
        raise _unknown_layout(path)
    annotated = layout.read(path, empty_images == "missing")
    return letterboxed_splits(annotated, layout.name, image_size, empty_images, invalid_boxes)


def is_box_folder(path: Path) -> bool:
    """Whether a folder has one of the layouts."""
    return _layout(path) is not None


def _layout(path: Path) -> _Layout | None:
    return next((layout for layout in _LAYOUTS if layout.is_layout(path)), None)


def _unknown_layout(path: Path) -> DataError:
    inner = path / "train" if (path / "train").is_dir() else path
    if any(p.suffix for folder in inner.iterdir() if folder.is_dir() for p in folder.glob("*.*")):
        hint = "; if these are folders of classes, leave out --task"
    else:
        hint = ""
    hint += label_list_hint(path) or label_list_hint(inner)
    known = "; ".join(f"{layout.name} ({layout.example})" for layout in _LAYOUTS)
    return DataError(f"{path} is in none of the layouts for boxes: {known}{hint}")


def letterboxed_splits(
    annotated: AnnotatedSplits,
    layout: str,
    image_size: ImageSize | None,
    empty_images: str,
    invalid_boxes: str,
) -> DatasetSplits:
    """Splits of letterboxed images from annotation tables, not yet decoded."""
    tables: dict[str, BoxTable] = {
        split: check_boxes(annotated.tables[split], invalid_boxes, empty_images)
        for split in SPLITS
        if split in annotated.tables
    }
    if not len(tables["train"].owners):
        raise DataError("there is no object in any of the training pictures")
    size = both_sides(image_size) or _frame_size(tables)
    images = {
        split: LetterboxedFiles(table.paths, letterbox_boxes(table, size), table.sizes)
        for split, table in tables.items()
    }
    val, test = promote_val_to_test(images.get("val"), images.get("test"))
    return DatasetSplits(
        images["train"],
        val,
        test,
        annotated.class_names,
        True,
        IMAGENET,
        layout,
        annotated.notes,
    )


def _frame_size(tables: Mapping[str, BoxTable]) -> tuple[int, int]:
    sizes = np.concatenate([table.sizes for table in tables.values()])
    shrunk = sizes * np.minimum(1, _MAX_SIDE / sizes.max(1, keepdims=True))
    multiples = np.ceil(shrunk.max(0) / _SIDE_MULTIPLE - 1e-6).astype(int)
    height, width = (multiples * _SIDE_MULTIPLE).tolist()
    return height, width


def load_or_stream(splits: Mapping[str, ImageFiles]) -> Mapping[str, ImageSet]:
    """Decode the images into memory if they fit into 4 GiB; else keep the files."""
    needed = sum(len(files) * int(np.prod(files.shape)) for files in splits.values())
    if needed > _IN_MEMORY:
        return splits
    return load_splits(splits)
