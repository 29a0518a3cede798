"""Boxes in COCO's layout: a JSON file for each part (https://cocodataset.org/#format-data)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, PositiveInt, ValidationError

from ..core import DataError
from .box_table import (
    Annotated,
    Rows,
    Sheet,
    part_named,
    sheet,
)

SHOWN = "annotations/instances_train2017.json beside train2017/, or train/_annotations.coco.json"
_BESIDE = "_annotations.coco.json"  # in the folder of the pictures, as Roboflow writes it
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


def recognized(path: Path) -> bool:
    """Whether the annotations of training pictures lie there."""
    return bool(_files(path).get("train"))


def read(path: Path, missing: bool) -> Annotated:
    """Read PATH/annotations/instances_PART.json or PART.json, or PATH/PART/_annotations.coco.json.

    PART is train, val, valid or test, a year may follow. The pictures are looked for in PATH/PART,
    PATH/images/PART, PATH/images and PATH. Without parts, PATH/_annotations.coco.json is read.
    Classes are counted in the order of their ids. Crowds are neither trained for nor counted.

    Args:
        path: the folder.
        missing: has no meaning here: what stands in the file is annotated.

    Raises:
        DataError: a file that is not of that form, or a picture that is not there.
    """
    contents = {part: (file, _parsed(file)) for part, file in _one_each(_files(path)).items()}
    known = contents["train"][1].names()
    for file, content in contents.values():
        _check_same(file, content, known)
    labels = {number: label for label, number in enumerate(known)}
    sheets = {part: _sheet(path, *pair, labels) for part, pair in contents.items()}
    return Annotated(sheets, list(known.values()))


def _files(path: Path) -> dict[str, list[Path]]:
    """The annotation files of each part."""
    found: dict[str, list[Path]] = {}
    for file in sorted((path / "annotations").glob("*.json")):
        if part := part_named(file.stem.removeprefix("instances_")):
            found.setdefault(part, []).append(file)
    for file in sorted(path.glob(f"*/{_BESIDE}")):
        if part := part_named(file.parent.name):
            found.setdefault(part, []).append(file)
    alone = path / _BESIDE
    return found or ({"train": [alone]} if alone.is_file() else {})


def _one_each(files: Mapping[str, list[Path]]) -> dict[str, Path]:
    for part, several in files.items():
        if len(several) > 1:
            names = " and ".join(map(str, several[:2]))
            raise DataError(f"{names} both annotate the {part} part; keep one of them there")
    return {part: file for part, (file,) in files.items()}


def _parsed(file: Path) -> _Content:
    try:
        content = _Content.model_validate_json(file.read_bytes())
    except OSError as fault:
        raise DataError(f"cannot read the annotations {file} ({fault.strerror})") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = " ".join(str(part) for part in first["loc"])
        raise DataError(
            f"{file} is not in COCO's form{f', at {place}' if place else ''}: {first['msg']}"
        ) from None
    if not content.images:
        raise DataError(f"there is no picture in {file}")
    if len({image.id for image in content.images}) < len(content.images):
        raise DataError(f"two pictures in {file} have the same id")
    return content


def _check_same(file: Path, content: _Content, known: Mapping[int, str]) -> None:
    for number, name in content.names().items():
        if known.get(number) != name:
            other = f"is '{known[number]}'" if number in known else "is none"
            raise DataError(
                f"{file} calls the category {number} '{name}', which {other} in the training "
                "part; the categories of all parts must be the same"
            )


def _sheet(path: Path, file: Path, content: _Content, labels: Mapping[int, int]) -> Sheet:
    place = {image.id: i for i, image in enumerate(content.images)}
    rows: Rows = []
    for number, each in enumerate(content.annotations):
        if each.iscrowd:
            continue
        if each.image_id not in place:
            raise DataError(
                f"annotation {number} in {file} is of an unknown image, id {each.image_id}"
            )
        if each.category_id not in labels:
            raise DataError(
                f"annotation {number} in {file} has the category {each.category_id}; there are "
                f"{len(labels)}, {min(labels)} … {max(labels)}"
            )
        x, y, wide, tall = each.bbox
        rows.append((place[each.image_id], labels[each.category_id], x, y, x + wide, y + tall))
    paths = _pictures(path, file, [image.file_name for image in content.images])
    sizes = [(image.height, image.width) for image in content.images]
    return sheet(paths, np.array(sizes), rows)


def _pictures(path: Path, file: Path, names: Sequence[str]) -> list[Path]:
    """Where the pictures lie: in the first of the usual folders that has the first of them."""
    own = file.stem.removeprefix("instances_")
    usual = [path / own, path / "images" / own, path / "images", path]
    folders = [file.parent] if file.name == _BESIDE else usual
    folder = next((f for f in folders if (f / names[0]).is_file()), folders[0])
    found = [folder / name for name in names]
    for picture in found:
        if not picture.is_file():
            raise DataError(f"{file} names the picture {picture}, and there is none")
    return found
