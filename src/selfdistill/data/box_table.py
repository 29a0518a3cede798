"""Tables of annotated boxes as the layout readers return them, and their validation."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..core import DataError
from .images import ImageFiles, map_in_threads
from .letterbox import IntArray, letterbox_areas
from .targets import NO_BOX, Boxes

FloatArray = npt.NDArray[np.float64]
_TOLERANCE = 1.0  # pixels beyond the edge that are rounding
_SPLIT = re.compile(r"(train|val|test)\d*")


class BoxTable(NamedTuple):
    """The annotations of one split: T boxes in N images.

    Attributes:
        paths: of the images.
        sizes: (N, 2) int64: height and width of each image.
        owners: (T,) int64: index of the image that contains the box.
        labels: (T,) int64: class of the box.
        corners: (T, 4) float64: x1, y1, x2, y2 in pixels of the image.
    """

    paths: list[str]
    sizes: IntArray
    owners: IntArray
    labels: IntArray
    corners: FloatArray

    def select(self, mask: npt.NDArray[np.bool_]) -> "BoxTable":
        """The same images with the boxes of a mask (T,)."""
        return self._replace(
            owners=self.owners[mask], labels=self.labels[mask], corners=self.corners[mask]
        )


class AnnotatedSplits(NamedTuple):
    """The tables of a folder by split ("train", "val", "test"), and the names of the classes."""

    tables: dict[str, BoxTable]
    class_names: list[str]


BoxRows = list[tuple[int, int, float, float, float, float]]
"""Image index, class and four corners of each box."""


def box_table(paths: Sequence[Path | str], sizes: IntArray, rows: BoxRows) -> BoxTable:
    """A table from rows of image index, class and four corners."""
    columns = np.array(rows, dtype=np.float64).reshape(-1, 6)
    owners, labels = columns[:, :2].astype(np.int64).T
    return BoxTable([str(path) for path in paths], sizes, owners, labels, columns[:, 2:])


def check_boxes(table: BoxTable, invalid_boxes: str, empty_images: str) -> BoxTable:
    """The valid boxes, clipped to their images.

    A box that reaches over an edge by a pixel or less counts as rounded and is clipped.

    Args:
        table: of one split.
        invalid_boxes: "refuse" boxes that have no area or reach further out, or "fix" them: drop
            the former and clip the latter.
        empty_images: "refuse" images without an object, or keep them.

    Raises:
        DataError: a box or an image is refused.
    """
    limits = np.tile(table.sizes[table.owners][:, ::-1], 2)  # (T, 4): width, height, twice
    outside = ((table.corners < -_TOLERANCE) | (table.corners > limits + _TOLERANCE)).any(1)
    clipped = table._replace(corners=table.corners.clip(0, limits))
    flat = ~_has_area(clipped.corners)  # not a number is no area
    if invalid_boxes == "refuse":
        _refuse(table, ~_has_area(table.corners), "has no area", "leave out such boxes")
        _refuse(table, outside | flat, "reaches out of the picture", "clip such boxes")
    kept = clipped.select(~flat)
    counts = np.bincount(kept.owners, minlength=len(kept.paths))
    if empty_images == "refuse" and not counts.all():
        first = kept.paths[int(counts.argmin())]
        raise DataError(
            f"{int((counts == 0).sum())} of {len(counts)} pictures hold no object, the first is "
            f"{first}; annotate or remove them, or keep them by --empty-images keep"
        )
    return kept


def _has_area(corners: FloatArray) -> npt.NDArray[np.bool_]:
    return np.asarray((corners[:, 2:] > corners[:, :2]).all(1))


def _refuse(table: BoxTable, invalid: npt.NDArray[np.bool_], defect: str, remedy: str) -> None:
    if not invalid.any():
        return
    first = int(invalid.argmax())
    owner = table.owners[first]
    height, width = table.sizes[owner]
    box = ", ".join(f"{x:g}" for x in table.corners[first])
    others = f" (and {invalid.sum() - 1:,} more)" if invalid.sum() > 1 else ""
    raise DataError(
        f"the box ({box}) in {table.paths[owner]}, which is {width}×{height}, {defect}{others}; "
        f"correct the annotation, or {remedy} by --invalid-boxes fix"
    )


def letterbox_boxes(table: BoxTable, size: tuple[int, int]) -> Boxes:
    """The boxes in pixels of the frame (height, width) that their images are letterboxed into."""
    areas = letterbox_areas(table.sizes, size)
    scale = areas[:, 2:] / table.sizes
    start = np.tile(areas[:, 1::-1], 2)[table.owners]  # left, top, twice
    corners = table.corners * np.tile(scale[:, ::-1], 2)[table.owners] + start
    counts = np.bincount(table.owners, minlength=len(table.paths))
    order = table.owners.argsort(kind="stable")
    owners = table.owners[order]
    rank = np.arange(len(owners)) - (counts.cumsum() - counts)[owners]  # within its image
    rows = np.zeros((len(table.paths), max(int(counts.max()), 1), 5), dtype=np.float32)
    rows[..., 0] = NO_BOX
    rows[owners, rank, 0] = table.labels[order]
    rows[owners, rank, 1:] = corners[order]
    return Boxes(torch.from_numpy(rows), size)


def split_of_name(name: str) -> str | None:
    """`train`, `val` or `test` for a folder's or file's name such as `train2017` or `valid`."""
    match = _SPLIT.fullmatch("val" if name == "valid" else name)
    return match[1] if match else None


def files_by_stem(folder: Path, suffixes: tuple[str, ...] = IMG_EXTENSIONS) -> dict[str, Path]:
    """The files of a folder by their names without suffix, sorted."""
    files = (p for p in sorted(folder.iterdir()) if p.suffix.lower() in suffixes)
    return {p.stem: p for p in files if not p.name.startswith("._")}


def image_sizes(paths: Sequence[Path]) -> IntArray:
    """Height and width of each image from the header of its file: (N, 2)."""
    files = ImageFiles(paths, torch.zeros(len(paths), dtype=torch.int64), (1, 1))
    return np.array(map_in_threads(files.stored_size, range(len(paths)))).reshape(-1, 2)
