"""Boxes in Pascal VOC's layout: an XML file for each picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from ..core import DataError, nearest
from .box_table import (
    Annotated,
    Rows,
    Sheet,
    by_stem,
    in_threads,
    sheet,
    stored_sizes,
)
from .splits import listed_names

SHOWN = "Annotations/NAME.xml beside JPEGImages/NAME.jpg"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
Files = tuple[Sequence[Path], Sequence[Path | None]]
"""The pictures of a part, and the annotation of each; None for one that has none."""


class _Page(NamedTuple):
    """One XML file: (height, width) and the objects, each a class and four corners."""

    size: tuple[int, int]
    objects: list[tuple[str, list[float]]]


def recognized(path: Path) -> bool:
    """Whether there are annotations as XML, and pictures."""
    return any((path / "Annotations").glob("*.xml")) and _folder(path).is_dir()


def read(path: Path, missing: bool) -> Annotated:
    """Read PATH/Annotations/NAME.xml with PATH/JPEGImages/NAME.jpg, or images/ in its place.

    PATH/ImageSets/Main/{train,val,test}.txt list the names of each part; without such lists all
    are training pictures. Classes stand line by line in PATH/classes.txt; without it they are the
    sorted names that occur.

    Args:
        path: the folder.
        missing: whether a picture without an annotation is one without an object.

    Raises:
        DataError: a file that is not there or not of that form.
    """
    pictures, pages = by_stem(_folder(path)), by_stem(path / "Annotations", (".xml",))
    parts = _lists(path) or {"train": sorted(pictures.keys() | pages.keys())}
    files = {part: _paired(path, stems, pictures, pages, missing) for part, stems in parts.items()}
    return annotated(files, listed_names(path))


def annotated(files: Mapping[str, Files], names: list[str]) -> Annotated:
    """Sheets from lists of pictures and annotations; `names` may be empty.

    Objects marked as difficult are left out, as in VOC's own evaluation: they are neither trained
    for nor counted. Pixels count from 1 in these files, and a box holds its last pixel.

    Raises:
        DataError: an annotation that cannot be read, or an object of a class that is not listed.
    """
    pages = {part: in_threads(_page, pages) for part, (_, pages) in files.items()}
    found = {name for part in pages.values() for p in part if p for name, _ in p.objects}
    known = {name: label for label, name in enumerate(names or sorted(found))}
    sheets = {part: _sheet(*files[part], pages[part], known) for part in files}
    return Annotated(sheets, list(known))


def _folder(path: Path) -> Path:
    own = path / "JPEGImages"
    return own if own.is_dir() else path / "images"


def _lists(path: Path) -> dict[str, list[str]]:
    files = {part: path / "ImageSets" / "Main" / f"{part}.txt" for part in ("train", "val", "test")}
    there = {part: file.read_text().split() for part, file in files.items() if file.is_file()}
    if there and not there.get("train"):
        raise DataError(f"there is no list of training pictures {files['train']}, or it is empty")
    return {part: stems for part, stems in there.items() if stems}


def _paired(
    path: Path,
    stems: Sequence[str],
    pictures: Mapping[str, Path],
    pages: Mapping[str, Path],
    missing: bool,
) -> Files:
    for stem in stems:
        if stem not in pictures:
            raise DataError(f"there is no picture {_folder(path) / stem}.jpg, which is annotated")
        if stem not in pages and not missing:
            raise DataError(
                f"the picture {pictures[stem]} has no annotation {path / 'Annotations' / stem}.xml;"
                " if there is no object in it, --empty-images missing allows that"
            )
    return [pictures[stem] for stem in stems], [pages.get(stem) for stem in stems]


def _page(file: Path | None) -> _Page | None:
    if file is None:
        return None
    try:
        root = ElementTree.parse(file).getroot()
        size = int(root.findtext("size/height", "0")), int(root.findtext("size/width", "0"))
        objects = [_object(file, each) for each in root.iter("object") if not _is_difficult(each)]
    except (ElementTree.ParseError, OSError, ValueError) as fault:
        if isinstance(fault, DataError):
            raise
        raise DataError(f"cannot read the annotation {file} ({fault})") from None
    return _Page(size, objects)


def _is_difficult(element: ElementTree.Element) -> bool:
    return element.findtext("difficult", "0").strip() == "1"


def _object(file: Path, element: ElementTree.Element) -> tuple[str, list[float]]:
    name = element.findtext("name", "").strip()
    texts = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    if not name or None in texts:
        raise DataError(f"an object in {file} lacks its name or a corner ({', '.join(_CORNERS)})")
    x1, y1, x2, y2 = (float(text or "") for text in texts)
    return name, [x1 - 1, y1 - 1, x2, y2]


def _sheet(
    paths: Sequence[Path],
    files: Sequence[Path | None],
    pages: Sequence[_Page | None],
    known: Mapping[str, int],
) -> Sheet:
    rows: Rows = []
    for place, page in enumerate(pages):
        for name, (x1, y1, x2, y2) in page.objects if page else []:
            if name not in known:
                raise DataError(f"'{name}' in {files[place]} is no class{nearest(name, known)}")
            rows.append((place, known[name], x1, y1, x2, y2))
    sizes = np.array([page.size if page else (0, 0) for page in pages], dtype=np.int64)
    unknown = np.flatnonzero((sizes < 1).any(1)).tolist()
    sizes[unknown] = stored_sizes([paths[place] for place in unknown])
    return sheet(paths, sizes, rows)
