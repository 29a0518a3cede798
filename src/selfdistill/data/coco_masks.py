"""Boxes around the masks of COCO's annotations: polygons and run lengths."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from .box_table import NO_CORNERS

Corners = tuple[float, float, float, float]


def mask_corners(segmentation: Any) -> Corners:
    """Corners x1, y1, x2, y2 of the box around a mask; `NO_CORNERS` of an empty one.

    Args:
        segmentation: polygons, or a dictionary of run lengths, compressed or not
            (https://cocodataset.org/#format-data).

    Raises:
        ValueError, TypeError, LookupError: it is neither.
    """
    if isinstance(segmentation, dict):
        height, width = map(int, segmentation["size"])
        counts = segmentation["counts"]
        runs = _run_lengths(counts) if isinstance(counts, str) else list(map(int, counts))
        return _box_of_runs(runs, height, width)
    polygons = [list(map(float, polygon)) for polygon in segmentation or []]
    if any(len(polygon) % 2 for polygon in polygons):
        raise ValueError("a polygon has a number too many")
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return (min(xs), min(ys), max(xs), max(ys)) if xs else NO_CORNERS


def _run_lengths(text: str) -> list[int]:
    """Run lengths of a string, five bits a sign; from the fourth on less the last but one.

    As `rleFrString` of https://github.com/cocodataset/cocoapi has it.
    """
    runs: list[int] = []
    value = shift = 0
    for sign in text:
        code = ord(sign) - 48
        if not 0 <= code < 64:
            raise ValueError(f"{sign!r} is no sign of run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:  # more of this number follows
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs


def _box_of_runs(runs: Sequence[int], height: int, width: int) -> Corners:
    """The box of runs of background and mask in turn, which go down the columns."""
    if height < 1 or min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"the run lengths are not of {width}×{height} pixels")
    ends = list(pairwise(accumulate(runs, initial=0)))[1::2]
    filled = [(start, end - 1) for start, end in ends if end > start]
    if not filled:
        return NO_CORNERS
    columns = [place // height for run in filled for place in run]
    rows = [place % height for run in filled for place in run]
    if any(start // height != end // height for start, end in filled):  # around a column's end
        rows += [0, height - 1]
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1
