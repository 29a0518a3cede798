"""Boxes in COCO's layout: a JSON file for each split (https://cocodataset.org/#format-data)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..core import DataError
from .box_table import (
    NO_CORNERS,
    AnnotatedSplits,
    BoxRows,
    BoxTable,
    annotated_size,
    box_table,
)
from .coco_masks import mask_corners
from .listing import child_folder, subfolders
from .parts import by_split, single, split_of_name
from .text_files import check_class_names, read_bytes

EXAMPLE = "annotations/instances_train2017.json beside train2017/, or train/_annotations.coco.json"
_ROBOFLOW = "_annotations.coco.json"  # in the folder of the images, as Roboflow exports it
_PREFIX = "instances_"
_MAX_BYTES = 4 << 30
_MAX_NAME = 1024  # signs
Id = int | str


class _Image(BaseModel):
    id: Id
    file_name: str
    width: float | str | None = None
    height: float | str | None = None


class _Annotation(BaseModel):
    image_id: Id
    category_id: int
    bbox: list[float] | None = None
    iscrowd: int = 0


class _MaskAnnotation(_Annotation):
    segmentation: Any = None


class _Category(BaseModel):
    id: int
    name: str


class _Content(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]

    def names(self) -> dict[int, str]:
        """{id: name}, in the order of the ids."""
        return {c.id: c.name for c in sorted(self.categories, key=lambda c: c.id)}


class _Masks(BaseModel):
    annotations: list[_MaskAnnotation]


def is_coco(path: Path) -> bool:
    """Whether a folder has COCO annotations of training images."""
    return bool(_files(path))


def read_coco(path: Path, allow_missing: bool) -> AnnotatedSplits:
    """Read PATH/annotations/instances_PART.json or PART.json, or PATH/PART/_annotations.coco.json.

    PART is train, val or test in one of their usual spellings, a year may follow; one file of
    another name holds training images. The images are searched in PATH/PART, PATH/images/PART,
    PATH/images and PATH. Without parts, PATH/_annotations.coco.json is read. Labels count the
    categories in the order of their ids. Crowd annotations are left out. An annotation without a
    bbox has the box around its segmentation.

    Args:
        path: the folder.
        allow_missing: has no effect: every image of the file is annotated.

    Raises:
        DataError: an invalid file, or a missing image.
    """
    files = single(_files(path))
    contents = {split: (file, _parse(file)) for split, file in files.items()}
    known = contents["train"][1].names()
    for file, content in contents.values():
        _check_categories(file, content, known)
    labels = {number: label for label, number in enumerate(known)}
    tables = {split: _table(path, *pair, labels) for split, pair in contents.items()}
    return AnnotatedSplits(tables, list(known.values()))


def _files(path: Path) -> dict[str, list[Path]]:
    """The annotation files of each split."""
    folder = child_folder(path, "annotations")
    files = sorted(folder.glob("[!.]*.json")) if folder else []
    boxes = [f for f in files if f.stem.startswith(_PREFIX) or split_of_name(f.stem)]
    if len(boxes) == 1 and not _split(boxes[0]):
        return {"train": boxes}  # CVAT's instances_default.json
    exports = [f / _ROBOFLOW for f in subfolders(path) if (f / _ROBOFLOW).is_file()]
    splits = by_split(boxes, _name) or by_split(exports, _name)
    one_file = path / _ROBOFLOW
    return splits or ({"train": [one_file]} if one_file.is_file() else {})


def _name(file: Path) -> str:
    """What names the part of an annotation file."""
    return file.parent.name if file.name == _ROBOFLOW else file.stem.removeprefix(_PREFIX)


def _split(file: Path) -> str | None:
    return split_of_name(_name(file))


def _parse(file: Path) -> _Content:
    text = read_bytes(file, _MAX_BYTES)
    try:
        content = _Content.model_validate_json(text)
        if any(not (a.bbox or a.iscrowd) for a in content.annotations):
            masks = _Masks.model_validate_json(text)  # not before: they take far more memory
            _add_boxes(file, content, masks)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        location = " ".join(str(key) for key in first["loc"])
        raise DataError(
            f"{file} is not in COCO's form{f', at {location}' if location else ''}: {first['msg']}"
        ) from None
    for items, noun in ((content.images, "picture"), (content.categories, "category")):
        ids = {item.id for item in items}
        if not ids:
            raise DataError(f"there is no {noun} in {file}")
        if len(ids) < len(items):
            plural = "categories" if noun == "category" else "pictures"
            raise DataError(f"two {plural} in {file} have the same id; number them anew")
    check_class_names(list(content.names().values()), str(file))
    return content


def _add_boxes(file: Path, content: _Content, masks: _Masks) -> None:
    """Fill in boxes that are missing.

    Raises:
        DataError: a mask is in no form of COCO.
    """
    pairs = zip(content.annotations, masks.annotations, strict=True)
    for number, (annotation, mask) in enumerate(pairs):
        if annotation.bbox or annotation.iscrowd or not mask.segmentation:
            continue
        try:
            left, top, right, bottom = mask_corners(mask.segmentation)
        except (ValueError, TypeError, LookupError) as error:
            raise DataError(
                f"annotation {number} in {file} has no bbox, and its segmentation is in no form of "
                f"COCO's ({str(error)[:100]}); correct it, or give the bbox"
            ) from None
        annotation.bbox = [left, top, right - left, bottom - top]


def _check_categories(file: Path, content: _Content, known: Mapping[int, str]) -> None:
    for number, name in content.names().items():
        if known.get(number) != name:
            other = f"is '{known[number]}'" if number in known else "is none"
            raise DataError(
                f"{file} calls the category {number} '{name}', which {other} in the training "
                "part; the categories of all parts must be the same"
            )


def _table(path: Path, file: Path, content: _Content, labels: Mapping[int, int]) -> BoxTable:
    index_of = {image.id: i for i, image in enumerate(content.images)}
    rows: BoxRows = []
    for number, annotation in enumerate(content.annotations):
        if annotation.iscrowd:
            continue
        if annotation.image_id not in index_of:
            raise DataError(
                f"annotation {number} in {file} is of an unknown image, id {annotation.image_id}"
            )
        if annotation.category_id not in labels:
            raise DataError(
                f"annotation {number} in {file} has the category {annotation.category_id}; there "
                f"are {len(labels)}, {min(labels)} … {max(labels)}"
            )
        index, label = index_of[annotation.image_id], labels[annotation.category_id]
        rows.append((index, label, *_corners(file, number, annotation.bbox or [])))
    paths = _image_paths(path, file, [image.file_name for image in content.images])
    sizes = [annotated_size(image.height, image.width, file) for image in content.images]
    return box_table(paths, sizes, rows)


def _corners(file: Path, number: int, box: Sequence[float]) -> tuple[float, float, float, float]:
    if not box:
        return NO_CORNERS
    if len(box) != 4:
        raise DataError(
            f"annotation {number} in {file} has a bbox of {len(box)} numbers; it is x, y, width, "
            "height"
        )
    x, y, width, height = box
    return x, y, x + width, y + height


def _image_paths(path: Path, file: Path, names: Sequence[str]) -> list[Path]:
    """Paths of the images, in the first of the usual folders that has the first image."""
    if file.name == _ROBOFLOW:
        folders = [file.parent]
    else:
        images = child_folder(path, "images", "JPEGImages") or path / "images"
        alike = [f for p in (path, images) for f in subfolders(p) if _split(f) == _split(file)]
        usual = [path / _name(file), images / _name(file), *alike, images, path]
        folders = [f for f in usual if os.path.isdir(f)]
    relative = [_relative(file, name) for name in names]
    folder = next((f for f in folders if os.path.isfile(f / relative[0])), folders[0])
    paths = [folder / name for name in relative]
    for image in paths:
        if not Path(os.path.normpath(image)).is_relative_to(os.path.normpath(path)):
            raise DataError(f"{file} names the picture {image}, which is outside of {path}")
        if not os.path.isfile(image):
            raise DataError(f"{file} names the picture {image}, and there is none")
    return paths


def _relative(file: Path, name: str) -> str:
    """A file's name as it is written on this system."""
    name = name.replace("\\", "/")
    if name.startswith("/") or name[1:2] == ":" or "\0" in name or len(name) > _MAX_NAME:
        raise DataError(
            f"{file} names a picture {name[:80]!a}, which is no file beside it; give names from "
            "the folder of the pictures on"
        )
    return name
