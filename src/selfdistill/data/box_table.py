"""Tables of annotated boxes as the layout readers return them, and their validation."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..core import DataError
from .images import map_images
from .letterbox import IntArray, letterbox_areas
from .open_image import UnreadableImageError, check_readable, image_size
from .targets import NO_BOX, Boxes

FloatArray = npt.NDArray[np.float64]
_TOLERANCE = 1.0  # pixels beyond the edge that are rounding
_MAX_SIDE = 1_000_000  # of an image, in an annotation


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
    """The tables of a folder by split ("train", "val", "test"), and the names of the classes.

    `notes` are what a user should know of how they were read.
    """

    tables: dict[str, BoxTable]
    class_names: list[str]
    notes: tuple[str, ...] = ()


BoxRows = list[tuple[int, int, float, float, float, float]]
"""Image index, class and four corners of each box."""
UNKNOWN_SIZE = 0, 0
"""Height and width that an annotation does not give."""
NO_CORNERS = (float("nan"),) * 4
"""Corners of an object whose annotation has no box."""


def box_table(
    paths: Sequence[Path | str], sizes: Sequence[tuple[int, int]] | IntArray, rows: BoxRows
) -> BoxTable:
    """A table from rows of image index, class and four corners.

    Sizes that are unknown are read from the images.
    """
    columns = np.array(rows, dtype=np.float64).reshape(-1, 6)
    owners, labels = columns[:, :2].astype(np.int64).T
    known = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    unknown = np.flatnonzero((known < 1).any(1)).tolist()
    known[unknown] = image_sizes([paths[index] for index in unknown])
    return BoxTable([str(path) for path in paths], known, owners, labels, columns[:, 2:])


def annotated_size(height: object, width: object, file: Path) -> tuple[int, int]:
    """Height and width as an annotation gives them; `UNKNOWN_SIZE` where it lacks one.

    Raises:
        DataError: one of them is no number of pixels.
    """
    sides = []
    for text in (height, width):
        try:
            side = float(str(text).strip() or 0) if text is not None else 0.0
        except ValueError:
            side = -1.0
        if not (0 <= side <= _MAX_SIDE and side.is_integer()):
            raise DataError(
                f"{file} gives a picture the side {str(text)[:40]}; correct it, or leave it out to "
                "have it read from the picture"
            )
        sides.append(int(side))
    return (sides[0], sides[1]) if min(sides) else UNKNOWN_SIZE


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
        lacking = np.asarray(np.isnan(table.corners).any(1))
        _refuse(table, lacking, "lacks a corner", "leave out such boxes")
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
    return Boxes(torch.from_numpy(rows), size, torch.from_numpy(areas))


def image_sizes(paths: Sequence[Path | str]) -> IntArray:
    """Height and width of each image from the header of its file: (N, 2).

    Raises:
        UnreadableImageError: naming all images that cannot be decoded.
    """
    files = list(map(str, paths))
    try:
        return np.array(map_images(image_size, files)).reshape(-1, 2)
    except UnreadableImageError:
        map_images(check_readable, files)  # finds those of broken content, too
        raise
