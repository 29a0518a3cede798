"""Boxes in Pascal VOC's layout: an XML file for each image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from ..core import DataError, nearest
from .box_table import (
    AnnotatedSplits,
    BoxRows,
    BoxTable,
    box_table,
    files_by_stem,
    image_sizes,
)
from .images import map_in_threads
from .splits import read_class_names

EXAMPLE = "Annotations/NAME.xml beside JPEGImages/NAME.jpg"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
Files = tuple[Sequence[Path], Sequence[Path | None]]
"""The images of a split, and the annotation file of each or None."""


class _Annotation(NamedTuple):
    """Content of one XML file: (height, width) and objects, each a class and four corners."""

    size: tuple[int, int]
    objects: list[tuple[str, list[float]]]


def is_voc(path: Path) -> bool:
    """Whether a folder has XML annotations and images."""
    return any((path / "Annotations").glob("*.xml")) and _image_folder(path).is_dir()


def read_voc(path: Path, allow_missing: bool) -> AnnotatedSplits:
    """Read PATH/Annotations/NAME.xml with PATH/JPEGImages/NAME.jpg, or images/ in its place.

    PATH/ImageSets/Main/{train,val,test}.txt list the names of each split; without such lists all
    are training images. Classes are the lines of PATH/classes.txt; without it, the sorted names
    that occur.

    Args:
        path: the folder.
        allow_missing: whether an image without an annotation counts as one without an object.

    Raises:
        DataError: a missing or invalid file.
    """
    images = files_by_stem(_image_folder(path))
    annotations = files_by_stem(path / "Annotations", (".xml",))
    splits = _split_lists(path) or {"train": sorted(images.keys() | annotations.keys())}
    files = {
        split: _pair_files(path, stems, images, annotations, allow_missing)
        for split, stems in splits.items()
    }
    return read_annotations(files, read_class_names(path))


def read_annotations(files: Mapping[str, Files], names: list[str]) -> AnnotatedSplits:
    """Tables from lists of images and annotation files by split; `names` may be empty.

    Objects marked as difficult are left out of training and evaluation, as VOC evaluates. Pixels
    count from 1 in these files, and a box includes its last pixel.

    Raises:
        DataError: an annotation that cannot be read, or an object of an unknown class.
    """
    contents = {split: map_in_threads(_parse, xmls) for split, (_, xmls) in files.items()}
    annotations = (a for split in contents.values() for a in split if a)
    used = {name for annotation in annotations for name, _ in annotation.objects}
    known = {name: label for label, name in enumerate(names or sorted(used))}
    tables = {split: _table(*files[split], contents[split], known) for split in files}
    return AnnotatedSplits(tables, list(known))


def _image_folder(path: Path) -> Path:
    folder = path / "JPEGImages"
    return folder if folder.is_dir() else path / "images"


def _split_lists(path: Path) -> dict[str, list[str]]:
    folder = path / "ImageSets" / "Main"
    files = {split: folder / f"{split}.txt" for split in ("train", "val", "test")}
    lists = {split: file.read_text().split() for split, file in files.items() if file.is_file()}
    if lists and not lists.get("train"):
        raise DataError(f"there is no list of training pictures {files['train']}, or it is empty")
    return {split: stems for split, stems in lists.items() if stems}


def _pair_files(
    path: Path,
    stems: Sequence[str],
    images: Mapping[str, Path],
    annotations: Mapping[str, Path],
    allow_missing: bool,
) -> Files:
    for stem in stems:
        if stem not in images:
            raise DataError(
                f"there is no picture {_image_folder(path) / stem}.jpg, which is annotated"
            )
        if stem not in annotations and not allow_missing:
            raise DataError(
                f"the picture {images[stem]} has no annotation {path / 'Annotations' / stem}.xml;"
                " if there is no object in it, --empty-images missing allows that"
            )
    return [images[stem] for stem in stems], [annotations.get(stem) for stem in stems]


def _parse(file: Path | None) -> _Annotation | None:
    if file is None:
        return None
    try:
        root = ElementTree.parse(file).getroot()
        size = int(root.findtext("size/height", "0")), int(root.findtext("size/width", "0"))
        elements = (e for e in root.iter("object") if not _is_difficult(e))
        objects = [_object(file, element) for element in elements]
    except (ElementTree.ParseError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read the annotation {file} ({error})") from None
    return _Annotation(size, objects)


def _is_difficult(element: ElementTree.Element) -> bool:
    return element.findtext("difficult", "0").strip() == "1"


def _object(file: Path, element: ElementTree.Element) -> tuple[str, list[float]]:
    name = element.findtext("name", "").strip()
    texts = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    if not name or None in texts:
        raise DataError(f"an object in {file} lacks its name or a corner ({', '.join(_CORNERS)})")
    x1, y1, x2, y2 = (float(text or "") for text in texts)
    return name, [x1 - 1, y1 - 1, x2, y2]


def _table(
    paths: Sequence[Path],
    files: Sequence[Path | None],
    annotations: Sequence[_Annotation | None],
    known: Mapping[str, int],
) -> BoxTable:
    rows: BoxRows = []
    for index, annotation in enumerate(annotations):
        for name, (x1, y1, x2, y2) in annotation.objects if annotation else []:
            if name not in known:
                raise DataError(f"'{name}' in {files[index]} is no class{nearest(name, known)}")
            rows.append((index, known[name], x1, y1, x2, y2))
    sizes = np.array([a.size if a else (0, 0) for a in annotations], dtype=np.int64)
    unknown = np.flatnonzero((sizes < 1).any(1)).tolist()
    sizes[unknown] = image_sizes([paths[index] for index in unknown])
    return box_table(paths, sizes, rows)
