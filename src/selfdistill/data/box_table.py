"""Annotated pictures as the reader of a layout hands them over, and what boxes must be like."""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..core import DataError
from .images import Folder
from .letterbox import Integers, placed
from .targets import NONE, Boxes

Floats = npt.NDArray[np.float64]
_SLACK = 1.0  # pixels beyond the edge that are rounding
_PART = re.compile(r"(train|val|test)\d*")
T = TypeVar("T")
S = TypeVar("S")


class Sheet(NamedTuple):
    """The annotations of one part: T boxes in N pictures.

    Attributes:
        paths: of the pictures.
        sizes: (N, 2) int64: height and width of each.
        owners: (T,) int64: the picture that a box lies in.
        classes: (T,) int64.
        corners: (T, 4) float64: x1, y1, x2, y2 in pixels of the picture.
    """

    paths: list[str]
    sizes: Integers
    owners: Integers
    classes: Integers
    corners: Floats

    def chosen(self, places: npt.NDArray[np.bool_]) -> "Sheet":
        """The same pictures with some of the boxes."""
        return self._replace(
            owners=self.owners[places], classes=self.classes[places], corners=self.corners[places]
        )


class Annotated(NamedTuple):
    """What a folder holds: sheets by part ("train", "val", "test") and the names of the classes."""

    sheets: dict[str, Sheet]
    names: list[str]


Rows = list[tuple[int, int, float, float, float, float]]


def sheet(paths: Sequence[Path | str], sizes: Integers, rows: Rows) -> Sheet:
    """From rows of picture, class and four corners."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    owners, classes = table[:, :2].astype(np.int64).T
    return Sheet([str(path) for path in paths], sizes, owners, classes, table[:, 2:])


def checked(sheet: Sheet, faulty: str, empty: str) -> Sheet:
    """Boxes inside of their pictures.

    What reaches beyond an edge by a pixel or less is rounding and clipped.

    Args:
        sheet: of one part.
        faulty: "refuse" a box that has no area or reaches further out, or "fix": leave out the
            first and clip the second.
        empty: "refuse" pictures without an object, or keep them.

    Raises:
        DataError: a box or a picture that is to be refused.
    """
    limits = np.tile(sheet.sizes[sheet.owners][:, ::-1], 2)  # (T, 4): width, height, twice
    outside = ((sheet.corners < -_SLACK) | (sheet.corners > limits + _SLACK)).any(1)
    inside = sheet._replace(corners=sheet.corners.clip(0, limits))
    flat = ~_has_area(inside.corners)  # not a number is no area
    if faulty == "refuse":
        _refuse(sheet, ~_has_area(sheet.corners), "has no area", "leave out such boxes")
        _refuse(sheet, outside | flat, "reaches out of the picture", "clip such boxes")
    kept = inside.chosen(~flat)
    counts = np.bincount(kept.owners, minlength=len(kept.paths))
    if empty == "refuse" and not counts.all():
        first = kept.paths[int(counts.argmin())]
        raise DataError(
            f"{int((counts == 0).sum())} of {len(counts)} pictures hold no object, the first is "
            f"{first}; annotate or remove them, or keep them by --empty-images keep"
        )
    return kept


def _has_area(corners: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray((corners[:, 2:] > corners[:, :2]).all(1))


def _refuse(sheet: Sheet, wrong: npt.NDArray[np.bool_], fault: str, remedy: str) -> None:
    if not wrong.any():
        return
    first = int(wrong.argmax())
    owner = sheet.owners[first]
    height, width = sheet.sizes[owner]
    box = ", ".join(f"{x:g}" for x in sheet.corners[first])
    several = f" (and {wrong.sum() - 1:,} more)" if wrong.sum() > 1 else ""
    raise DataError(
        f"the box ({box}) in {sheet.paths[owner]}, which is {width}×{height}, {fault}{several}; "
        f"correct the annotation, or {remedy} by --invalid-boxes fix"
    )


def boxes(sheet: Sheet, size: tuple[int, int]) -> Boxes:
    """The boxes where they lie once each picture is letterboxed into a frame of this size."""
    place = placed(sheet.sizes, size)
    scale = place[:, 2:] / sheet.sizes
    start = np.tile(place[:, 1::-1], 2)[sheet.owners]  # left, top, twice
    moved = sheet.corners * np.tile(scale[:, ::-1], 2)[sheet.owners] + start
    counts = np.bincount(sheet.owners, minlength=len(sheet.paths))
    order = sheet.owners.argsort(kind="stable")
    owners = sheet.owners[order]
    rank = np.arange(len(owners)) - (counts.cumsum() - counts)[owners]
    rows = np.zeros((len(sheet.paths), max(int(counts.max()), 1), 5), dtype=np.float32)
    rows[..., 0] = NONE
    rows[owners, rank, 0] = sheet.classes[order]
    rows[owners, rank, 1:] = moved[order]
    return Boxes(torch.from_numpy(rows), size)


def part_named(name: str) -> str | None:
    """`train`, `val` or `test` of a folder's name, such as `train2017` or `valid`."""
    found = _PART.fullmatch("val" if name == "valid" else name)
    return found[1] if found else None


def by_stem(folder: Path, suffixes: tuple[str, ...] = IMG_EXTENSIONS) -> dict[str, Path]:
    """The files of a folder by their names without ending, sorted."""
    files = (p for p in sorted(folder.iterdir()) if p.suffix.lower() in suffixes)
    return {p.stem: p for p in files if not p.name.startswith("._")}


def stored_sizes(paths: Sequence[Path]) -> Integers:
    """Height and width of each picture, from the headers of the files: (N, 2)."""
    folder = Folder(paths, torch.zeros(len(paths), dtype=torch.int64), (1, 1))
    return np.array(in_threads(folder.stored_size, range(len(paths)))).reshape(-1, 2)


def in_threads(work: Callable[[T], S], items: Sequence[T]) -> list[S]:
    """The results in order, worked out by as many threads as the machine has cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, items))
