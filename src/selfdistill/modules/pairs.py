"""The stages of a student and those of its teacher, side by side."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from ..core import ConfigError
from ..functional.attention import pooled_to
from ..taps import Taps

Shape = tuple[int, int, int]


def paired_shapes(student: Taps, teacher: Taps) -> list[tuple[Shape, Shape]]:
    """(C, H, W) of each stage of the student and of the teacher's stage that it learns from.

    Raises:
        ConfigError: the two have different numbers of taps.
    """
    mine, its = len(student.names), len(teacher.names)
    if mine != its:
        raise ConfigError(
            f"student has {mine} taps and teacher {its}, and each stage learns from the one that "
            "stands at its place; give as many names with --taps as with --teacher-taps"
        )
    return list(zip(student.shapes.values(), teacher.shapes.values(), strict=True))


def check_positions(pairs: Iterable[tuple[Shape, Shape]]) -> None:
    """For terms that compare where something is.

    Raises:
        ConfigError: all stages meet in a single cell.
    """
    if all(min(a[1], b[1]) * min(a[2], b[2]) == 1 for a, b in pairs):
        raise ConfigError(
            "this method compares where in the image something is seen, and at all taps one of the "
            "networks has a single cell; choose earlier taps or larger images"
        )


def pooled_pairs(
    mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Maps of the student and of the teacher, the larger one averaged down to the other's size."""
    pairs = zip(mine.values(), theirs.values(), strict=True)
    return [(pooled_to(x, y), pooled_to(y, x)) for x, y in pairs]
