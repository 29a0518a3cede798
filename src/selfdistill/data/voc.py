"""Boxes in Pascal VOC's layout: an XML file for each image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from ..core import DataError, nearest
from .box_table import (
    NO_CORNERS,
    UNKNOWN_SIZE,
    AnnotatedSplits,
    BoxRows,
    BoxTable,
    annotated_size,
    box_table,
)
from .listing import Listing
from .parts import Pairs, by_split, paired_folders, single, split_of_name
from .text_files import read_bytes, read_class_names, read_lines
from .threads import map_in_threads

EXAMPLE = "Annotations/NAME.xml beside JPEGImages/NAME.jpg"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
Files = tuple[Sequence[Path], Sequence[Path | None]]
"""The images of a split, and the annotation file of each or None."""


class _Annotation(NamedTuple):
    """Content of one XML file: (height, width) and objects, each a class and four corners."""

    size: tuple[int, int]
    objects: list[tuple[str, tuple[float, float, float, float]]]


def is_voc(path: Path) -> bool:
    """Whether a folder has XML annotations and images."""
    pairs = _folders(path).values()
    return any(next(xmls.glob("*.xml"), None) for folders in pairs for _, xmls in folders)


def read_voc(path: Path, allow_missing: bool) -> AnnotatedSplits:
    """Read PATH/Annotations/NAME.xml with PATH/JPEGImages/NAME.jpg, or images/ in its place.

    Both may lie in one folder, and each part in a folder of its own. Otherwise
    PATH/ImageSets/Main/{train,val,test}.txt list the names of each split; without such lists all
    are training images. Classes are the lines of PATH/classes.txt; without it, the sorted names
    that occur.

    Args:
        path: the folder.
        allow_missing: whether an image without an annotation counts as one without an object.

    Raises:
        DataError: a missing or invalid file.
    """
    listing, folders = Listing(), _folders(path)
    lists = _split_lists(path) if len(folders) == 1 else {}
    files: dict[str, Files] = {}
    for split, pairs in folders.items():
        for image_folder, xml_folder in pairs:
            images = listing.by_stem(image_folder)
            xmls = listing.by_stem(xml_folder, (".xml",))
            for part, lines in (lists or {split: sorted(images.keys() | xmls.keys())}).items():
                names = [_listed(line, images) for line in lines]
                pair = _pair_files(image_folder, xml_folder, names, images, xmls, allow_missing)
                known_images, known_xmls = files.get(part, ((), ()))
                files[part] = [*known_images, *pair[0]], [*known_xmls, *pair[1]]
    annotated = read_annotations(files, read_class_names(path))
    return annotated._replace(notes=listing.notes())


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


def _folders(path: Path) -> Pairs:
    """Folders of images and of annotations, by split."""
    images = ("JPEGImages", "images", "imgs")
    return paired_folders(path, images, ("annotations", "xmls", "xml"), ".xml")


def _split_lists(path: Path) -> dict[str, list[str]]:
    """The lines of each split's list; `trainval` stands in for a missing `train`."""
    folder = path / "ImageSets" / "Main"
    files = [f for f in sorted(folder.glob("[!.]*.txt")) if split_of_name(f.stem)]
    both = folder / "trainval.txt"
    if both.is_file() and not any(split_of_name(f.stem) == "train" for f in files):
        files = [both, *(f for f in files if split_of_name(f.stem) == "test")]
    if not files:
        return {}
    splits = single(by_split(files, lambda f: "train" if f == both else f.stem))
    lists = {split: read_lines(file) for split, file in splits.items()}
    if not lists["train"]:
        raise DataError(f"the list of training pictures {splits['train']} is empty; fill it")
    return {split: lines for split, lines in lists.items() if lines}


def _listed(line: str, images: Mapping[str, Path]) -> str:
    """The name in a line of a list, which may have a folder, an ending, or a flag behind it."""
    bare, _, flag = line.rpartition(" ")
    spellings = []
    for text in (line, bare.strip()) if flag in ("1", "0", "-1") else (line,):
        name = text.replace("\\", "/").rpartition("/")[2]
        spellings += [text, name, name.rpartition(".")[0]]
    return next((spelling for spelling in spellings if spelling in images), line)


def _pair_files(
    image_folder: Path,
    xml_folder: Path,
    stems: Sequence[str],
    images: Mapping[str, Path],
    annotations: Mapping[str, Path],
    allow_missing: bool,
) -> Files:
    for stem in stems:
        if stem not in images:
            raise DataError(f"there is no picture {image_folder / stem}.jpg, which is annotated")
        if stem not in annotations and not allow_missing:
            raise DataError(
                f"the picture {images[stem]} has no annotation {xml_folder / stem}.xml;"
                " if there is no object in it, --empty-images missing allows that"
            )
    return [images[stem] for stem in stems], [annotations.get(stem) for stem in stems]


def _parse(file: Path | None) -> _Annotation | None:
    if file is None:
        return None
    try:
        root = ElementTree.fromstring(read_bytes(file))
        height, width = root.findtext("size/height"), root.findtext("size/width")
        elements = (e for e in root.iter("object") if not _is_difficult(e))
        objects = [_object(file, element) for element in elements]
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read the annotation {file} ({error})") from None
    return _Annotation(annotated_size(height, width, file), objects)


def _is_difficult(element: ElementTree.Element) -> bool:
    return element.findtext("difficult", "0").strip() == "1"


def _object(
    file: Path, element: ElementTree.Element
) -> tuple[str, tuple[float, float, float, float]]:
    name = element.findtext("name", "").strip()
    texts = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    if not any(texts) and name:
        return name, NO_CORNERS
    if not name or None in texts:
        raise DataError(f"an object in {file} lacks its name or a corner ({', '.join(_CORNERS)})")
    x1, y1, x2, y2 = (float(text or "") for text in texts)
    return name, (x1 - 1, y1 - 1, x2, y2)


def _table(
    paths: Sequence[Path],
    files: Sequence[Path | None],
    annotations: Sequence[_Annotation | None],
    known: Mapping[str, int],
) -> BoxTable:
    rows: BoxRows = []
    for index, annotation in enumerate(annotations):
        for name, corners in annotation.objects if annotation else []:
            if name not in known:
                raise DataError(f"'{name}' in {files[index]} is no class{nearest(name, known)}")
            rows.append((index, known[name], *corners))
    return box_table(paths, [a.size if a else UNKNOWN_SIZE for a in annotations], rows)
