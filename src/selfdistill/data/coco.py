"""Boxes in COCO's layout: a JSON file for each split (https://cocodataset.org/#format-data)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, PositiveInt, ValidationError

from ..core import DataError
from .box_table import (
    AnnotatedSplits,
    BoxRows,
    BoxTable,
    box_table,
    split_of_name,
)

EXAMPLE = "annotations/instances_train2017.json beside train2017/, or train/_annotations.coco.json"
_ROBOFLOW = "_annotations.coco.json"  # in the folder of the images, as Roboflow exports it
Id = int | str


class _Image(BaseModel):
    id: Id
    file_name: str
    width: PositiveInt
    height: PositiveInt


class _Annotation(BaseModel):
    image_id: Id
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


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


def is_coco(path: Path) -> bool:
    """Whether a folder has COCO annotations of training images."""
    return bool(_files(path).get("train"))


def read_coco(path: Path, allow_missing: bool) -> AnnotatedSplits:
    """Read PATH/annotations/instances_PART.json or PART.json, or PATH/PART/_annotations.coco.json.

    PART is train, val, valid or test, a year may follow. The images are searched in PATH/PART,
    PATH/images/PART, PATH/images and PATH. Without parts, PATH/_annotations.coco.json is read.
    Labels count the categories in the order of their ids. Crowd annotations are left out.

    Args:
        path: the folder.
        allow_missing: has no effect: every image of the file is annotated.

    Raises:
        DataError: an invalid file, or a missing image.
    """
    files = _single_files(_files(path))
    contents = {split: (file, _parse(file)) for split, file in files.items()}
    known = contents["train"][1].names()
    for file, content in contents.values():
        _check_categories(file, content, known)
    labels = {number: label for label, number in enumerate(known)}
    tables = {split: _table(path, *pair, labels) for split, pair in contents.items()}
    return AnnotatedSplits(tables, list(known.values()))


def _files(path: Path) -> dict[str, list[Path]]:
    """The annotation files of each split."""
    files: dict[str, list[Path]] = {}
    for file in sorted((path / "annotations").glob("*.json")):
        if split := split_of_name(file.stem.removeprefix("instances_")):
            files.setdefault(split, []).append(file)
    for file in sorted(path.glob(f"*/{_ROBOFLOW}")):
        if split := split_of_name(file.parent.name):
            files.setdefault(split, []).append(file)
    single = path / _ROBOFLOW
    return files or ({"train": [single]} if single.is_file() else {})


def _single_files(files: Mapping[str, list[Path]]) -> dict[str, Path]:
    for split, candidates in files.items():
        if len(candidates) > 1:
            names = " and ".join(map(str, candidates[:2]))
            raise DataError(f"{names} both annotate the {split} part; keep one of them there")
    return {split: file for split, (file,) in files.items()}


def _parse(file: Path) -> _Content:
    try:
        content = _Content.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read the annotations {file} ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        location = " ".join(str(key) for key in first["loc"])
        raise DataError(
            f"{file} is not in COCO's form{f', at {location}' if location else ''}: {first['msg']}"
        ) from None
    if not content.images:
        raise DataError(f"there is no picture in {file}")
    if len({image.id for image in content.images}) < len(content.images):
        raise DataError(f"two pictures in {file} have the same id")
    return content


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
        x, y, width, height = annotation.bbox
        index, label = index_of[annotation.image_id], labels[annotation.category_id]
        rows.append((index, label, x, y, x + width, y + height))
    paths = _image_paths(path, file, [image.file_name for image in content.images])
    sizes = [(image.height, image.width) for image in content.images]
    return box_table(paths, np.array(sizes), rows)


def _image_paths(path: Path, file: Path, names: Sequence[str]) -> list[Path]:
    """Paths of the images, in the first of the usual folders that has the first image."""
    split = file.stem.removeprefix("instances_")
    usual = [path / split, path / "images" / split, path / "images", path]
    folders = [file.parent] if file.name == _ROBOFLOW else usual
    folder = next((f for f in folders if (f / names[0]).is_file()), folders[0])
    paths = [folder / name for name in names]
    for image in paths:
        if not image.is_file():
            raise DataError(f"{file} names the picture {image}, and there is none")
    return paths
