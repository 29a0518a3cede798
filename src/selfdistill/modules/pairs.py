"""The stages of a student paired with those of its teacher."""

from collections.abc import Iterable, Mapping
from math import prod

from torch import Tensor

from ..core import ConfigError
from ..functional.attention import pooled_to
from ..taps import Taps, Teacher, same_aspect

Shape = tuple[int, ...]


def paired_shapes(student: Taps, teacher: Teacher) -> list[tuple[Shape, Shape]]:
    """The shape of each stage of the student and of the teacher's stage with the same number.

    They are (C, H, W), and of clips (C, T, H, W).

    Raises:
        ConfigError: the two have different numbers of taps.
    """
    if len(student.names) != len(teacher.names):
        raise ConfigError(
            f"student has {len(student.names)} taps and teacher {len(teacher.names)}, and stage i "
            "learns from stage i; give as many names with --taps as with --teacher-taps"
        )
    pairs = list(zip(student.shapes.values(), teacher.shapes.values(), strict=True))
    for pair in pairs:
        check_layouts(*pair)
    return pairs


def check_layouts(student: Shape, teacher: Shape) -> None:
    """Refuse to compare the places of a map with a sequence whose places in the image are unknown.

    Raises:
        ConfigError: one of the two (C, H, W) is a single column, and the other has other
            proportions; or one alone has times.
    """
    if len(student) != len(teacher):
        raise ConfigError(
            f"features of {' × '.join(map(str, student))} and {' × '.join(map(str, teacher))} "
            "would be compared, of which one alone has times; take networks of one kind, or taps "
            "where both have them"
        )
    for (rows, columns), (height, width) in (
        (student[-2:], teacher[-2:]),
        (teacher[-2:], student[-2:]),
    ):
        if columns == 1 < width and not same_aspect((rows, 1), (height, width)):
            raise ConfigError(
                f"a sequence of {rows} tokens, whose places in the image are unknown, would be "
                f"compared with a map of {height}×{width}; name modules that give maps with --taps "
                "and --teacher-taps, or take a method of pooled features (rkd, sp, crd)"
            )


def check_positions(pairs: Iterable[tuple[Shape, Shape]]) -> None:
    """Refuse stages without spatial extent, for terms that compare positions.

    Raises:
        ConfigError: at all stages one of the two maps has a single position.
    """
    if all(prod(map(min, a[1:], b[1:])) == 1 for a, b in pairs):
        raise ConfigError(
            "this method compares spatial maps, and at all taps one of the networks has a single "
            "cell; choose earlier taps or larger images"
        )


def taps_by_number(
    student: Taps, teacher: Teacher, tap: int, *, from_deepest: bool
) -> tuple[str, str]:
    """Names of the student's and of the teacher's tap with this number, 1 the first in its order.

    Raises:
        ConfigError: one of the networks has fewer taps, or the two do not compare.
    """
    fewest = min(len(student.names), len(teacher.names))
    if not 1 <= tap <= fewest:
        end = "deepest" if from_deepest else "shallowest"
        raise ConfigError(
            f"tap={tap} is counted from the {end}, and both networks have taps up to "
            f"{fewest}; give 1 … {fewest}, or name more with --taps and --teacher-taps"
        )
    index = -tap if from_deepest else tap - 1
    names = student.names[index], teacher.names[index]
    check_layouts(student.shapes[names[0]], teacher.shapes[names[1]])
    return names


def pooled_pairs(
    student_features: Mapping[str, Tensor], teacher_features: Mapping[str, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Maps of student and teacher by stage, the larger one averaged to the size of the other."""
    pairs = zip(student_features.values(), teacher_features.values(), strict=True)
    return [(pooled_to(x, y), pooled_to(y, x)) for x, y in pairs]
