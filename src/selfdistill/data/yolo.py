"""Boxes in YOLO's layout: a text file for each image, a line for each box."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from ..core import DataError
from .box_table import (
    AnnotatedSplits,
    BoxRows,
    box_table,
    files_by_stem,
    image_sizes,
    split_of_name,
)
from .images import map_in_threads
from .letterbox import IntArray
from .splits import read_class_names

EXAMPLE = "images/train/NAME.jpg beside labels/train/NAME.txt, with data.yaml or classes.txt"
_LINE_FORMAT = "class cx cy w h, the last four as fractions of the picture"
Line = tuple[int, float, float, float, float]
Files = dict[Path, Path | None]
"""The images of a split, and the label file of each or None."""


def is_yolo(path: Path) -> bool:
    """Whether a folder has folders of training images and labels."""
    return "train" in _folders(path)


def read_yolo(path: Path, allow_missing: bool) -> AnnotatedSplits:
    """Read PATH/images/PART/NAME.jpg with PATH/labels/PART/NAME.txt, or PATH/PART/images/….

    PART is train, val, valid or test, a year may follow, and several years are joined. Without
    parts PATH/images and PATH/labels are read. Names of the classes are `names` of PATH/data.yaml
    (or another *.yaml there), or the lines of PATH/classes.txt; without them classes are numbered
    up to the largest that occurs. An empty text file means that there is no object.

    Args:
        path: the folder.
        allow_missing: whether an image without a text file counts as one without an object.

    Raises:
        DataError: a missing or invalid file.
    """
    files: dict[str, Files] = {}
    for split, folders in _folders(path).items():
        for images, labels in folders:
            files.setdefault(split, {}).update(_pair_files(images, labels, allow_missing))
        if not files[split]:
            raise DataError(f"there is no picture in {folders[0][0]}")
    boxes = {split: map_in_threads(_parse, list(pairs.values())) for split, pairs in files.items()}
    names = _class_names(path)
    if not names:
        used = (box[0] for split in boxes.values() for lines in split for box in lines)
        names = [str(label) for label in range(max(used, default=0) + 1)]
    tables = {}
    for split, pairs in files.items():
        for file, lines in zip(pairs.values(), boxes[split], strict=True):
            _check_classes(file, lines, names)
        sizes = image_sizes(list(pairs))
        tables[split] = box_table(list(map(str, pairs)), sizes, _rows(boxes[split], sizes))
    return AnnotatedSplits(tables, names)


def _folders(path: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Folders of images and of labels, by split."""
    folders: dict[str, list[tuple[Path, Path]]] = {}
    for images in (*sorted(path.glob("images/*")), *sorted(path.glob("*/images"))):
        inside = images.parent.name == "images"
        split = split_of_name(images.name if inside else images.parent.name)
        labels = path / "labels" / images.name if inside else images.parent / "labels"
        if split and labels.is_dir():
            folders.setdefault(split, []).append((images, labels))
    if not folders and (path / "images").is_dir() and (path / "labels").is_dir():
        return {"train": [(path / "images", path / "labels")]}
    return folders


def _pair_files(images: Path, labels: Path, allow_missing: bool) -> Files:
    image_files, texts = files_by_stem(images), files_by_stem(labels, (".txt",))
    texts.pop("classes", None)  # labelImg's list of classes
    for stem, file in texts.items():
        if stem not in image_files:
            raise DataError(f"there is no picture of the labels {file} in {images}")
    for stem, image in image_files.items():
        if stem not in texts and not allow_missing:
            raise DataError(
                f"the picture {image} has no labels {labels / stem}.txt; if there is no object "
                "in it, write an empty file, or --empty-images missing allows that"
            )
    return {image: texts.get(stem) for stem, image in image_files.items()}


def _parse(file: Path | None) -> list[Line]:
    if file is None:
        return []
    try:
        texts = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the labels {file} ({error})") from None
    return [_parse_line(file, n, text) for n, text in enumerate(texts, 1) if text.strip()]


def _parse_line(file: Path, number: int, text: str) -> Line:
    try:
        label, x, y, width, height = map(float, text.split())
        if not label.is_integer() or label < 0:
            raise ValueError
    except ValueError:
        raise DataError(
            f"line {number} of {file} is '{text.strip()[:60]}'; a box is {_LINE_FORMAT}"
        ) from None
    return int(label), x, y, width, height


def _check_classes(file: Path | None, lines: list[Line], names: list[str]) -> None:
    for label, *_ in lines:
        if label >= len(names):
            raise DataError(
                f"{file} has a box of the class {label}; there are {len(names)} names, so classes "
                f"are 0 … {len(names) - 1}"
            )


def _rows(boxes: list[list[Line]], sizes: IntArray) -> BoxRows:
    rows: BoxRows = []
    for index, lines in enumerate(boxes):
        image_height, image_width = sizes[index].tolist()
        for label, x, y, width, height in lines:
            left, top = (x - width / 2) * image_width, (y - height / 2) * image_height
            right, bottom = left + width * image_width, top + height * image_height
            rows.append((index, label, left, top, right, bottom))
    return rows


def _class_names(path: Path) -> list[str]:
    for file in sorted(path.glob("*.y*ml"), key=lambda p: (p.stem != "data", p.name)):
        if names := _names_in_yaml(file):
            return names
    return read_class_names(path)


def _names_in_yaml(file: Path) -> list[str]:
    """The `names` of a YAML file, a list or a mapping from 0; empty where it has none."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        reason = str(error).replace("\n", " ")
        raise DataError(f"cannot read {file} ({reason})") from None
    names = content.get("names") if isinstance(content, Mapping) else None
    if isinstance(names, Mapping):
        if sorted(names) != list(range(len(names))):
            raise DataError(f"names in {file} must be numbered 0 … {len(names) - 1}")
        names = [names[label] for label in range(len(names))]
    return [str(name) for name in names] if isinstance(names, list) else []
