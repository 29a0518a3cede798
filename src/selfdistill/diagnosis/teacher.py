"""Report on the teacher: its score on the data, and whether its inputs and classes fit."""

import math
from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric

from ..engine.protocols import Batches
from ..recipe.build_method import teacher_network
from ..recipe.build_run import RunComponents
from ..recipe.teacher_cache import describe_kept_outputs
from ..runs.teacher_check import evaluate_teacher, size_warnings
from ..tasks.metric_names import shown_metric
from .network import count_parameters


@dataclass(frozen=True)
class TeacherReport:
    """A teacher before training.

    Attributes:
        name: as given in the recipe.
        parameters: number of parameters.
        score: a fraction, nan where its classes are not the data's.
        metric: the task's primary metric, in which the score is.
        images: number and kind of the images that it was evaluated on.
        classes: how it is known that its classes are the data's, in their order.
        normalization: how it is known that it takes the data's normalization.
        kept: what of its outputs would be kept on the disk, "" where none are to be.
        warnings: sentences with a remedy.
    """

    name: str
    parameters: int
    score: float
    metric: str
    images: str
    classes: str
    normalization: str
    kept: str
    warnings: list[str]


_KNOWN_FROM_RUN = "the data's, by its run's data.json"


def check_teacher(
    components: RunComponents, fabric: Fabric, batches: Batches
) -> TeacherReport | None:
    """Evaluate the teacher, None if there is none; one that does not fit was refused before."""
    name, teacher = components.recipe.teacher, components.teacher
    if teacher is None:
        return None
    metric = components.task.primary_metric
    scores, images, warnings = {metric: math.nan}, "no", size_warnings(components)
    if not components.teacher_unlike and not components.task.embeddings:
        scores, images, warnings = evaluate_teacher(teacher_network(teacher), components, fabric)
    classes = normalization = f"not known; only its {shown_metric(metric)} speaks for it"
    if Path(name).is_dir():
        classes = normalization = _KNOWN_FROM_RUN
    elif name.startswith(("timm/", "torchvision/")):
        normalization = "the data's, as it was published with"
    normalization = components.teacher_note or normalization
    if components.teacher_license:
        warnings = [*warnings, f"its weights are under {components.teacher_license}"]
    if components.task.embeddings:
        classes = "not read: its features alone are"
    elif components.teacher_unlike:
        classes = "not the data's: its features alone are read"
    return TeacherReport(
        name=name,
        parameters=count_parameters(teacher_network(teacher)),
        score=scores[metric],
        metric=metric,
        images=images,
        classes=classes,
        normalization=normalization,
        kept=describe_kept_outputs(components, batches),
        warnings=warnings,
    )
