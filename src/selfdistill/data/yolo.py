"""Boxes in YOLO's layout: a text file for each picture, a line for each box."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from ..core import DataError
from .box_table import (
    Annotated,
    Rows,
    by_stem,
    in_threads,
    part_named,
    sheet,
    stored_sizes,
)
from .letterbox import Integers
from .splits import listed_names

SHOWN = "images/train/NAME.jpg beside labels/train/NAME.txt, with data.yaml or classes.txt"
_FORM = "class cx cy w h, the last four as fractions of the picture"
Line = tuple[int, float, float, float, float]
Files = dict[Path, Path | None]
"""The pictures of a part, and the labels of each; None for one that has none."""


def recognized(path: Path) -> bool:
    """Whether there are folders of training pictures and labels."""
    return "train" in _places(path)


def read(path: Path, missing: bool) -> Annotated:
    """Read PATH/images/PART/NAME.jpg with PATH/labels/PART/NAME.txt, or PATH/PART/images/….

    PART is train, val, valid or test, a year may follow, and several years are joined. Without
    parts PATH/images and PATH/labels are read. Names of the classes stand in PATH/data.yaml (or
    another *.yaml there) as `names`, or line by line in PATH/classes.txt; without them classes are
    numbered up to the largest that occurs. An empty text file means that there is no object.

    Args:
        path: the folder.
        missing: whether a picture without a text file is one without an object.

    Raises:
        DataError: a file that is not there or not of that form.
    """
    files: dict[str, Files] = {}
    for part, places in _places(path).items():
        for images, labels in places:
            files.setdefault(part, {}).update(_paired(images, labels, missing))
        if not files[part]:
            raise DataError(f"there is no picture in {places[0][0]}")
    lines = {part: in_threads(_lines, list(found.values())) for part, found in files.items()}
    names = _names(path)
    if not names:
        used = (line[0] for part in lines.values() for each in part for line in each)
        names = [str(label) for label in range(max(used, default=0) + 1)]
    sheets = {}
    for part, found in files.items():
        for file, each in zip(found.values(), lines[part], strict=True):
            _check_classes(file, each, names)
        sizes = stored_sizes(list(found))
        sheets[part] = sheet(list(map(str, found)), sizes, _rows(lines[part], sizes))
    return Annotated(sheets, names)


def _places(path: Path) -> dict[str, list[tuple[Path, Path]]]:
    """For each part its folders of pictures and of labels."""
    found: dict[str, list[tuple[Path, Path]]] = {}
    for images in (*sorted(path.glob("images/*")), *sorted(path.glob("*/images"))):
        within = images.parent.name == "images"
        part = part_named(images.name if within else images.parent.name)
        labels = path / "labels" / images.name if within else images.parent / "labels"
        if part and labels.is_dir():
            found.setdefault(part, []).append((images, labels))
    if not found and (path / "images").is_dir() and (path / "labels").is_dir():
        return {"train": [(path / "images", path / "labels")]}
    return found


def _paired(images: Path, labels: Path, missing: bool) -> Files:
    pictures, texts = by_stem(images), by_stem(labels, (".txt",))
    texts.pop("classes", None)  # which labelImg writes beside them
    for stem, file in texts.items():
        if stem not in pictures:
            raise DataError(f"there is no picture of the labels {file} in {images}")
    for stem, picture in pictures.items():
        if stem not in texts and not missing:
            raise DataError(
                f"the picture {picture} has no labels {labels / stem}.txt; if there is no object "
                "in it, write an empty file, or --empty-images missing allows that"
            )
    return {picture: texts.get(stem) for stem, picture in pictures.items()}


def _lines(file: Path | None) -> list[Line]:
    if file is None:
        return []
    try:
        texts = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise DataError(f"cannot read the labels {file} ({fault})") from None
    return [_line(file, n, text) for n, text in enumerate(texts, 1) if text.strip()]


def _line(file: Path, number: int, text: str) -> Line:
    try:
        label, x, y, wide, tall = map(float, text.split())
        if not label.is_integer() or label < 0:
            raise ValueError
    except ValueError:
        raise DataError(
            f"line {number} of {file} is '{text.strip()[:60]}'; a box is {_FORM}"
        ) from None
    return int(label), x, y, wide, tall


def _check_classes(file: Path | None, lines: list[Line], names: list[str]) -> None:
    for label, *_ in lines:
        if label >= len(names):
            raise DataError(
                f"{file} has a box of the class {label}; there are {len(names)} names, so classes "
                f"are 0 … {len(names) - 1}"
            )


def _rows(lines: list[list[Line]], sizes: Integers) -> Rows:
    rows: Rows = []
    for place, each in enumerate(lines):
        height, width = sizes[place].tolist()
        for label, x, y, wide, tall in each:
            left, top = (x - wide / 2) * width, (y - tall / 2) * height
            rows.append((place, label, left, top, left + wide * width, top + tall * height))
    return rows


def _names(path: Path) -> list[str]:
    for file in sorted(path.glob("*.y*ml"), key=lambda p: (p.stem != "data", p.name)):
        if names := _named(file):
            return names
    return listed_names(path)


def _named(file: Path) -> list[str]:
    """The `names` of a YAML file, a list or a table from 0; none where it has none."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as fault:
        reason = str(fault).replace("\n", " ")
        raise DataError(f"cannot read {file} ({reason})") from None
    names = content.get("names") if isinstance(content, Mapping) else None
    if isinstance(names, Mapping):
        if sorted(names) != list(range(len(names))):
            raise DataError(f"names in {file} must be numbered 0 … {len(names) - 1}")
        names = [names[label] for label in range(len(names))]
    return [str(name) for name in names] if isinstance(names, list) else []
