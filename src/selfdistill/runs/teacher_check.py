"""Whether a teacher can teach: its score, and whether it is the one that the run began with."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

from lightning_fabric import Fabric
from torch import nn

from ..core import STUDENT, ArtifactError
from ..data import ImageSet
from ..engine.callback import Callback
from ..engine.evaluate import evaluate_network
from ..engine.run_directory import RunDirectory
from ..recipe.build_method import teacher_network
from ..recipe.build_run import RunComponents
from ..recipe.loaders import eval_loader
from ..recipe.teachers import fingerprint, teacher_tap_shapes
from ..records.exit_scores import read_exit_scores
from ..records.training_data import (
    DATA_FILE,
    TEACHER_FILE,
    TeacherRecord,
    read_teacher,
)
from ..tasks.metric_names import shown_metric

_MAX_IMAGES = 10_000  # images that a teacher is evaluated by
_MIN_MAP = 0.01  # mean average precision of boxes that is told from nothing


def check_teacher(
    components: RunComponents, fabric: Fabric, directory: RunDirectory, callback: Callback
) -> None:
    """Report the teacher's score, and make sure that a resumed run has the one it began with.

    Raises:
        ArtifactError: the run began with another teacher.
    """
    teacher, task = components.teacher, components.task
    if teacher is None:
        return
    digest, earlier = fingerprint(teacher), fabric.broadcast(read_teacher(directory.path))
    if earlier is not None:  # in all processes, which must go the same way
        if earlier.sha256 != digest:
            raise ArtifactError(
                f"teacher {components.recipe.teacher} is no longer the one that this run began "
                "with; give the old one back, or start a new run"
            )
        return
    scores: dict[str, float] = {}
    images = ""
    if components.teacher_license:
        callback.on_message(
            f"the weights of {components.recipe.teacher} are under {components.teacher_license}; "
            "see what it says of networks that are trained with them"
        )
    if task.embeddings:
        sentences = size_warnings(components)
    elif components.teacher_unlike:
        callback.on_message("the teacher's classes are not the data's: its features alone are read")
        sentences = size_warnings(components)
    else:
        scores, images, sentences = evaluate_teacher(teacher_network(teacher), components, fabric)
        score, metric = scores[task.primary_metric], shown_metric(task.primary_metric)
        callback.on_message(
            f"the teacher gets {score:.1%} of {images} images right"
            if task.image_labels
            else f"the teacher reaches {score:.1%} {metric} on {images} images"
        )
    for sentence in sentences:
        warnings.warn(sentence, stacklevel=2)
    shapes = teacher_tap_shapes(components.method, teacher_network(teacher))
    record = TeacherRecord(components.recipe.teacher, digest, images, scores, shapes)
    if fabric.is_global_zero:
        directory.write(TEACHER_FILE, record.to_json())


def evaluate_teacher(
    teacher: nn.Module, components: RunComponents, fabric: Fabric
) -> tuple[dict[str, float], str, list[str]]:
    """A teacher's scores, the images they are of, and warnings."""
    data = components.data
    images, kind = (data.val, "validation") if data.val is not None else (data.train, "training")
    images = images.spread(_MAX_IMAGES)
    batches = eval_loader(components.recipe, data, images, fabric)
    scores = evaluate_network(fabric, teacher, components.task, batches)
    score = scores[components.task.primary_metric]
    chance = _chance_warning(scores, components, images)
    sentences = [chance] * bool(chance) + size_warnings(components, score)
    return scores, f"{len(images):,} {kind}", sentences


def size_warnings(components: RunComponents, score: float | None = None) -> list[str]:
    """That a teacher is used at another size of images than it was trained at, if it is."""
    name, size = components.recipe.teacher, components.teacher_size
    size, own = size[-2:], components.data.train.shape[-2:]
    if size in ((), own):
        return []
    before = "" if score is None else _score_of_run(Path(name))
    after = "" if score is None else f", where it has {score:.1%}"
    old, new = (f"{height}×{width}" for height, width in (size, own))
    remedy = (
        f"--image-size {size[0]} is its own, and --teacher-image-size {size[0]} shows it that alone"
        if size[0] == size[1]
        else f"bring the pictures to {old} to show it its own"
    )
    return [
        f"teacher {name} was trained on images of {old}{before} and is shown {new} here{after}; "
        f"{remedy}"
    ]


def _score_of_run(run_dir: Path) -> str:
    """The validation score that a teacher's run reports, a clause, or ""."""
    exits = read_exit_scores(run_dir) if (run_dir / DATA_FILE).is_file() else []
    score = next((e.val_score for e in exits if e.predictor == STUDENT), None)
    return "" if score is None else f", where it has a validation score of {score:.1%},"


def _chance_warning(
    scores: Mapping[str, float], components: RunComponents, images: ImageSet
) -> str:
    """That a teacher is hardly better than chance, or ""."""
    task, score = components.task, scores[components.task.primary_metric]
    metric = shown_metric(task.primary_metric)
    chance, reason = _MIN_MAP, f"{metric} is next to nothing"
    if task.image_labels:
        share = float(images.labels.bincount().max()) / len(images)
        chance = share + 2 * math.sqrt(share * (1 - share) / len(images))
        reason = f"is about chance, since the most frequent class has {share:.1%} of the images"
    elif task.dense_scores:  # it overlaps with that class alone: the mean over K is 1/K at most
        chance = 1 / len(task.classes)
        reason = f"{metric} is what one class everywhere can reach"
    if score >= chance:
        return ""
    question = "is it trained on these classes, in this order?"
    return f"teacher {components.recipe.teacher} guesses: {score:.1%} {reason}; {question}"
