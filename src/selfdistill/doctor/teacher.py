"""Whether a teacher can teach."""

from pathlib import Path
from typing import NamedTuple

from lightning_fabric import Fabric

from ..recipe.build import Parts
from ..running import judged_teacher
from .network import size_of


class TeacherReport(NamedTuple):
    """A teacher before training.

    Attributes:
        name: as it was asked for.
        parameters: of it.
        accuracy: a fraction.
        images: by which it was judged.
        classes: how it is known that its classes are the data's, in their order.
        normalisation: how it is known that it wants the data's normalisation.
        warnings: what to do about it, in sentences.
    """

    name: str
    parameters: int
    accuracy: float
    images: str
    classes: str
    normalisation: str
    warnings: list[str]


_BY_ITS_RUN = "the data's, by its run's data.json"
_BY_ACCURACY = "not known; only its accuracy speaks for it"


def look_at_teacher(parts: Parts, fabric: Fabric) -> TeacherReport | None:
    """Judge the teacher, if there is one; one that does not fit the data has been refused."""
    name, teacher = parts.recipe.teacher, parts.teacher
    if teacher is None:
        return None
    scores, images, doubt = judged_teacher(teacher, parts.recipe, parts, fabric)
    of_run = Path(name).is_dir()
    published = not of_run and name.startswith(("timm/", "torchvision/"))
    return TeacherReport(
        name,
        size_of(teacher),
        scores[parts.task.headline],
        images,
        _BY_ITS_RUN if of_run else _BY_ACCURACY,
        _BY_ITS_RUN
        if of_run
        else ("the data's, as it was published with" if published else _BY_ACCURACY),
        [doubt] if doubt else [],
    )
