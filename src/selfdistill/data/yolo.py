"""Boxes in YOLO's layout: a text file for each image, a line for each box."""

from pathlib import Path

import yaml

from ..core import DataError
from .box_table import NO_CORNERS, AnnotatedSplits, BoxRows, box_table, image_sizes
from .darknet import label_file, listed_images, path_lists
from .letterbox import IntArray
from .listing import Listing
from .parts import Pairs, paired_folders
from .text_files import check_class_names, read_class_names, read_lines, read_text
from .threads import map_in_threads

EXAMPLE = "images/train/NAME.jpg beside labels/train/NAME.txt, with data.yaml or classes.txt"
_LINE_FORMAT = "class cx cy w h, the last four as fractions of the picture"
_MAX_CLASS = 9_999  # where nothing names the classes
_MAX_FRACTION = 2  # beyond it, a box is in pixels
_NO_LABELS = ("classes", "notes", "train", "valid", "val", "test")
"""Text files that tools leave beside labels."""
Line = tuple[int, float, float, float, float]
Files = dict[Path, Path | None]
"""The images of a split, and the label file of each or None."""


def is_yolo(path: Path) -> bool:
    """Whether a folder has folders of training images and labels, or lists of images."""
    return bool(path_lists(path) or _folders(path))


def read_yolo(path: Path, allow_missing: bool) -> AnnotatedSplits:
    """Read PATH/images/PART/NAME.jpg with PATH/labels/PART/NAME.txt, or PATH/PART/images/….

    PART is train, val or test in one of their usual spellings, a year may follow, and several years
    are joined. Without parts PATH/images and PATH/labels are read; images and labels may lie in one
    folder, too. Names of the classes are `names` of PATH/data.yaml (or another *.yaml there), or
    the lines of PATH/classes.txt; without them classes are numbered up to the largest that occurs.
    An empty text file means that there is no object.

    Where no folder is named as a part, lists of images tell the parts, PATH/train.txt, valid.txt
    and test.txt, as darknet has them; names may be the lines of PATH/*.names, too.

    A line is a box, a box and its score, which is left out, or a polygon, which becomes the box
    around it.

    Args:
        path: the folder.
        allow_missing: whether an image without a text file counts as one without an object.

    Raises:
        DataError: a missing or invalid file.
    """
    listing, files = Listing(), _listed_files(path, allow_missing)
    for split, folders in (_folders(path) if not files else {}).items():
        for images, labels in folders:
            pairs = _pair_files(images, labels, allow_missing, listing)
            files.setdefault(split, {}).update(pairs)
        if not files[split]:
            raise DataError(f"there is no picture in {folders[0][0]}")
    boxes = {split: map_in_threads(_parse, list(pairs.values())) for split, pairs in files.items()}
    names = _class_names(path)
    for split, pairs in files.items():
        for file, lines in zip(pairs.values(), boxes[split], strict=True):
            _check_classes(file, lines, names)
    if not names:
        used = (box[0] for split in boxes.values() for lines in split for box in lines)
        names = [str(label) for label in range(max(used, default=0) + 1)]
    sizes = image_sizes([image for pairs in files.values() for image in pairs])
    tables, start = {}, 0
    for split, pairs in files.items():
        own = sizes[start : start + len(pairs)]
        tables[split] = box_table(list(pairs), own, _rows(boxes[split], own))
        start += len(pairs)
    return AnnotatedSplits(tables, names, listing.notes())


def _listed_files(path: Path, allow_missing: bool) -> dict[str, Files]:
    """The images that lists name, by split, and their labels; none without lists."""
    files: dict[str, Files] = {}
    for split, lists in path_lists(path).items():
        images = [image for file in lists for image in listed_images(path, file)]
        labels = {image: label_file(image) for image in images}
        known = {image: label if label.is_file() else None for image, label in labels.items()}
        lacking = next((image for image, label in known.items() if label is None), None)
        if lacking and not allow_missing:
            raise _unlabeled(lacking, labels[lacking])
        files[split] = known
    return files


def _unlabeled(image: Path, labels: Path) -> DataError:
    return DataError(
        f"the picture {image} has no labels {labels}; if there is no object in it, write an empty "
        "file, or --empty-images missing allows that"
    )


def _folders(path: Path) -> Pairs:
    """Folders of images and of labels, by split."""
    return paired_folders(path, ("images",), ("labels",), ".txt")


def _pair_files(images: Path, labels: Path, allow_missing: bool, listing: Listing) -> Files:
    image_files, texts = listing.by_stem(images), listing.by_stem(labels, (".txt",))
    for stem in _NO_LABELS:
        if stem not in image_files:
            texts.pop(stem, None)
    for stem, file in texts.items():
        if stem not in image_files and not stem.lower().startswith("readme"):
            raise DataError(f"there is no picture of the labels {file} in {images}")
    for stem, image in image_files.items():
        if stem not in texts and not allow_missing:
            raise _unlabeled(image, labels / f"{stem}.txt")
    return {image: texts.get(stem) for stem, image in image_files.items()}


def _parse(file: Path | None) -> list[Line]:
    if file is None:
        return []
    lines = enumerate(read_text(file).splitlines(), 1)
    return [_parse_line(file, number, line) for number, line in lines if line.strip()]


def _parse_line(file: Path, number: int, text: str) -> Line:
    try:
        label, *values = map(float, text.split())
        if not label.is_integer() or label < 0:
            raise ValueError
        x, y, width, height = _center_and_sides(values)
        if max(abs(x), abs(y), abs(width), abs(height)) > _MAX_FRACTION:
            raise ValueError
    except ValueError:
        raise DataError(
            f"line {number} of {file} is '{text.strip()[:60]}'; a box is {_LINE_FORMAT}"
        ) from None
    return int(label), x, y, width, height


def _center_and_sides(values: list[float]) -> list[float]:
    """Of a box, a box and its score, a polygon of three or more points, or nothing."""
    if not values:
        return list(NO_CORNERS)
    if len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[::2], values[1::2]
        sides = max(xs) - min(xs), max(ys) - min(ys)
        return [(max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2, *sides]
    if len(values) not in (4, 5):
        raise ValueError
    return values[:4]


def _check_classes(file: Path | None, lines: list[Line], names: list[str]) -> None:
    for label, *_ in lines:
        if names and label >= len(names):
            raise DataError(
                f"{file} has a box of the class {label}; there are {len(names)} names, so classes "
                f"are 0 … {len(names) - 1}"
            )
        if label > _MAX_CLASS and not names:
            raise DataError(
                f"{file} has a box of the class {label}, and without names {_MAX_CLASS} is the "
                "last; correct it, or name the classes in data.yaml"
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
    files = (p for p in path.glob("*.y*ml") if not p.name.startswith("."))
    for file in sorted(files, key=lambda p: (p.stem != "data", p.name)):
        if names := _names_in_yaml(file):
            check_class_names(names, str(file))
            return names
    for file in sorted(path.glob("[!.]*.names"))[:1]:
        names = read_lines(file)
        check_class_names(names, str(file))
        return names
    return read_class_names(path)


def _names_in_yaml(file: Path) -> list[str]:
    """The `names` of a YAML file, a list or a mapping from 0; empty where it has none.

    They are read from the nodes, as text: a `no` is no False, and no alias is expanded.
    """
    try:
        root = yaml.compose(read_text(file), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"cannot read {file} ({reason})") from None
    entries = root.value if isinstance(root, yaml.MappingNode) else []
    names = next((value for key, value in entries if key.value == "names"), None)
    if isinstance(names, yaml.SequenceNode):
        return [_scalar(file, node) for node in names.value]
    if not isinstance(names, yaml.MappingNode):
        return []
    pairs = [(_scalar(file, key), _scalar(file, value)) for key, value in names.value]
    numbered = {int(key): value for key, value in pairs if key.isdecimal() and len(key) < 9}
    if sorted(numbered) != list(range(len(pairs))):
        raise DataError(f"names in {file} must be numbered 0 … {len(pairs) - 1}")
    return [numbered[label] for label in range(len(pairs))]


def _scalar(file: Path, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise DataError(f"names in {file} hold a list or a mapping; each must be one name")
    return str(node.value)
