"""Whether a teacher can teach."""

from pathlib import Path
from typing import NamedTuple

from lightning_fabric import Fabric

from ..recipe.build_run import RunComponents
from ..runs.teacher_check import evaluate_teacher
from ..tasks.metric_names import shown_metric
from .network import count_parameters


class TeacherReport(NamedTuple):
    """A teacher before training.

    Attributes:
        name: as it was asked for.
        parameters: of it.
        score: a fraction.
        metric: what the score is, the task's primary_metric.
        images: by which it was judged.
        classes: how it is known that its classes are the data's, in their order.
        normalization: how it is known that it wants the data's normalization.
        warnings: what to do about it, in sentences.
    """

    name: str
    parameters: int
    score: float
    metric: str
    images: str
    classes: str
    normalization: str
    warnings: list[str]


_BY_ITS_RUN = "the data's, by its run's data.json"
_BY_SCORE = "not known; only its {metric} speaks for it"


def check_teacher(parts: RunComponents, fabric: Fabric) -> TeacherReport | None:
    """Judge the teacher, if there is one; one that does not fit the data has been refused."""
    name, teacher = parts.recipe.teacher, parts.teacher
    if teacher is None:
        return None
    scores, images, doubt = evaluate_teacher(teacher, parts, fabric)
    metric = parts.task.primary_metric
    by_score = _BY_SCORE.format(metric=shown_metric(metric))
    of_run = Path(name).is_dir()
    published = not of_run and name.startswith(("timm/", "torchvision/"))
    return TeacherReport(
        name,
        count_parameters(teacher),
        scores[metric],
        metric,
        images,
        _BY_ITS_RUN if of_run else by_score,
        _BY_ITS_RUN
        if of_run
        else ("the data's, as it was published with" if published else by_score),
        [doubt] if doubt else [],
    )
