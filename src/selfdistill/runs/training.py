"""A run from its recipe to what it leaves behind."""

import tomllib
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from ..core import ArtifactError, ConfigError, MissingExtraError, SelfdistillError, load_tensors
from ..data import ImageData, Loader
from ..engine.evaluate import EvaluationResult, evaluate_full, evaluate_network
from ..engine.log import Callback, NullCallback
from ..engine.run_directory import RunDirectory
from ..engine.trainer import Trainer
from ..recipe.build_run import (
    Companions,
    RunComponents,
    build_run,
    eval_loader,
    make_fabric,
    train_loader,
    training_settings,
)
from ..recipe.schema import Recipe, parse, write
from ..recipe.teachers import check_given_modules, describe_data, fingerprint
from ..records import calibration, exit_scores
from ..records.calibration import CalibrationTable
from ..records.class_tables import CLASSES_FILE, ClassScores, ConfusionMatrix
from ..records.exit_scores import ExitScore, read_exit_scores, score_exits
from ..records.training_data import DATA_FILE, TEACHER_FILE, TeacherRecord, read_teacher
from ..reporting.sample_images import write_pictures
from ..taps import Taps
from ..tasks import Classification
from ..tasks.metric_names import shown_metric
from .run import Run


def train_recipe(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    display: Callback | None = None,
    data: ImageData | None = None,
    model: nn.Module | None = None,
    company: Companions | None = None,
) -> Run:
    """Train what a recipe says; `train` is the comfortable way in."""
    if resume:
        recipe = load_recipe(out)
        check_given_modules(recipe, model, company.peers if company else ())
    fabric = make_fabric(recipe)
    fabric.launch()
    directory = RunDirectory(Path(fabric.broadcast(str(out or unique_run_dir(recipe)))))
    if not resume:
        directory.check_free()
    fabric.barrier()  # nobody writes before everybody has looked
    start = recipe.model_copy(update={"weights": ""}) if resume else recipe  # a checkpoint has them
    parts = build_run(start, data=data, model=model, company=company)
    recipe = parts.recipe.model_copy(update={"weights": recipe.weights})
    batches = train_loader(recipe, parts.data, parts.method, fabric)
    display = display if display and fabric.is_global_zero else NullCallback()
    with ExitStack() as stack:
        fault: SelfdistillError | None = None
        if fabric.is_global_zero:
            try:
                stack.enter_context(directory.held())
                if not resume:
                    directory.begin(write(recipe))
                    directory.write(DATA_FILE, describe_data(parts.data).to_json())
            except SelfdistillError as error:
                fault = error
        if fault := fabric.broadcast(fault):  # the others would wait for the first for ever
            raise fault
        display.begin(run_summary(recipe, parts, fabric, directory))
        if parts.teacher is not None:
            _introduce(parts.teacher, recipe, parts, fabric, directory, display)
        return _train(recipe, parts, batches, fabric, directory, display)


def run_summary(
    recipe: Recipe, parts: RunComponents, fabric: Fabric, directory: RunDirectory
) -> dict[str, str]:
    """What a run is, in a line each."""
    data = parts.data
    splits = {"train": data.train, "val": data.val, "test": data.test}
    sizes = ", ".join(f"{len(images):,} {name}" for name, images in splits.items() if images)
    shape = " × ".join(str(side) for side in data.train.shape)
    several = f" × {fabric.world_size}" if fabric.world_size > 1 else ""
    return {
        **({"task": data.task} if data.task != Classification.name else {}),
        "method": recipe.method,
        "network": _network(recipe.model, parts.network),
        **{f"peer {i}": _network(*peer) for i, peer in enumerate(_named_peers(parts), 1)},
        **({"teacher": _network(recipe.teacher, parts.teacher)} if parts.teacher else {}),
        "data": f"{data.name}: {sizes}; {len(data.classes)} classes, {shape}",
        "device": f"{fabric.device.type}{several}, {recipe.precision}",
        "run": str(directory.path),
    }


def _network(name: str, network: nn.Module) -> str:
    return f"{name}, {sum(p.numel() for p in network.parameters()):,} parameters"


def _named_peers(parts: RunComponents) -> list[tuple[str, nn.Module]]:
    names = parts.recipe.peers or [parts.recipe.model] * len(parts.peers)
    return list(zip(names, parts.peers, strict=True))


_JURY = 10_000  # images that a teacher is judged by, at most
_NOTHING_FOUND = 0.01  # of the boxes' mean average precision


def _introduce(
    teacher: nn.Module,
    recipe: Recipe,
    parts: RunComponents,
    fabric: Fabric,
    directory: RunDirectory,
    display: Callback,
) -> None:
    """Say how good the teacher is, and make sure that a resumed run has the one it began with."""
    digest, earlier = fingerprint(teacher), fabric.broadcast(read_teacher(directory.path))
    if earlier is not None:  # in all processes, which must go the same way
        if earlier.sha256 != digest:
            raise ArtifactError(
                f"teacher {recipe.teacher} is no longer the one that this run began with; "
                "give the old one back, or start a new run"
            )
        return
    scores, images, doubt = evaluate_teacher(teacher, recipe, parts, fabric)
    score, metric = scores[parts.task.primary_metric], shown_metric(parts.task.primary_metric)
    display.say(
        f"the teacher gets {score:.1%} of {images} images right"
        if parts.task.image_labels
        else f"the teacher reaches {score:.1%} {metric} on {images} images"
    )
    if doubt:
        warnings.warn(doubt, stacklevel=2)
    taps = (m for m in parts.method.modules() if isinstance(m, Taps) and m.network is teacher)
    shapes = next((module.shapes for module in taps), {})
    record = TeacherRecord(recipe.teacher, digest, images, scores, shapes)
    if fabric.is_global_zero:
        directory.write(TEACHER_FILE, record.to_json())


def evaluate_teacher(
    teacher: nn.Module, recipe: Recipe, parts: RunComponents, fabric: Fabric
) -> tuple[dict[str, float], str, str]:
    """How good a teacher is: its scores, on which images, and what is to be feared, or ""."""
    data = parts.data
    images, kind = (data.val, "validation") if data.val is not None else (data.train, "training")
    images = images.take(torch.arange(min(len(images), _JURY)))
    scores = evaluate_network(
        fabric, teacher, parts.task, eval_loader(recipe, data, images, fabric)
    )
    return scores, f"{len(images):,} {kind}", _doubt(scores, recipe, parts)


def _doubt(scores: Mapping[str, float], recipe: Recipe, parts: RunComponents) -> str:
    """What is to be feared of a teacher that is hardly better than chance, or ""."""
    task, score = parts.task, scores[parts.task.primary_metric]
    chance, said = _NOTHING_FOUND, f"{shown_metric(task.primary_metric)} is next to nothing"
    if task.image_labels:
        chance, said = 2 / len(task.classes), "is about chance"
    elif task.dense_scores:  # it overlaps with that class alone: the mean over K is 1/K at most
        chance = 1 / len(task.classes)
        said = f"{shown_metric(task.primary_metric)} is what one class everywhere can reach"
    if score >= chance:
        return ""
    question = "is it trained on these classes, in this order?"
    return f"teacher {recipe.teacher} guesses: {score:.1%} {said}; {question}"


def _train(
    recipe: Recipe,
    parts: RunComponents,
    batches: Loader,
    fabric: Fabric,
    directory: RunDirectory,
    display: Callback,
) -> Run:
    data, method = parts.data, parts.method
    val = eval_loader(recipe, data, data.val, fabric) if data.val else None
    settings = training_settings(recipe)
    fit = Trainer(fabric, method, parts.task, batches, val, settings, directory, display)
    fit.run()
    display.say("judging the finished network")
    with fit.ema_weights():
        rows = _finish(recipe, parts, fabric, directory, fit.total)
    if fabric.is_global_zero:
        _report(directory, display)
    if fit.average:
        load_tensors(method, fit.average.state, strict=False)
    return Run(directory.path, recipe, method.eval(), rows)


def _finish(
    recipe: Recipe, parts: RunComponents, fabric: Fabric, directory: RunDirectory, step: int
) -> list[ExitScore]:
    """Judge on validation and test images, once, and write the tables and the page."""
    data, task = parts.data, parts.task
    verdicts = {
        name: evaluate_full(fabric, parts.method, task, eval_loader(recipe, data, images, fabric))
        for name, images in (("val", data.val), ("test", data.test))
        if images is not None
    }
    scores = {name: verdict.scores for name, verdict in verdicts.items()}
    rows = score_exits(
        parts.method, task.example, task.primary_metric, scores.get("val"), scores.get("test")
    )
    if fabric.is_global_zero:
        directory.log({"kind": "final", "step": step, **scores})
        _write_details(directory, task.classes, verdicts)
        if judged := data.test or data.val:
            write_pictures(directory, fabric, parts.method, task, judged, data)
        directory.write(exit_scores.FILE, exit_scores.to_csv(rows))
    return rows


def _report(directory: RunDirectory, display: Callback) -> None:
    """Write the page, or say what it takes: a run is complete without it."""
    try:
        from ..reporting.run_page import write_report  # imports matplotlib, if it is installed

        write_report(directory)
    except MissingExtraError as error:
        display.say(f"{error}; the tables of this run are complete without it")


def _write_details(
    directory: RunDirectory, classes: Sequence[str], verdicts: Mapping[str, EvaluationResult]
) -> None:
    """The calibration of all predictors, and the student's matrices on the last of the splits."""
    tables = {
        split: {n: CalibrationTable.from_tensor(t) for n, t in verdict.calibration.items()}
        for split, verdict in verdicts.items()
    }
    if any(tables.values()):
        directory.write(calibration.FILE, calibration.to_csv(tables))
    for verdict in list(verdicts.values())[-1:]:
        for name, matrix in verdict.details.items():
            directory.write(f"{name}.csv", ConfusionMatrix(classes, matrix.numpy()).to_csv())
        if columns := verdict.by_class:
            directory.write(CLASSES_FILE, ClassScores.from_tensors(classes, columns).to_csv())


def load_or_train_exits(recipe: Recipe, place: Path, **given: Any) -> list[ExitScore]:
    """The exits of the run at a place: read if it is finished, else resumed or trained.

    `given` are `train_recipe`'s objects (`data`, `model`, `company`, `display`).

    Raises:
        ConfigError: the run there was made by another recipe.
    """
    begun = (place / "recipe.toml").exists()
    if begun and (other := first_difference(recipe, load_recipe(place))):
        raise ConfigError(f"{place} holds a run with another {other}; name another directory")
    if not (place / exit_scores.FILE).exists():
        train_recipe(recipe, out=place, resume=begun, **given)
    return read_exit_scores(place)


# What decides where a run is made, and not what comes out of it.
_WHERE = {"device", "devices", "nodes", "workers", "data_root", "teacher_model"}


def first_difference(one: Recipe, other: Recipe) -> str:
    """The first key in which two recipes ask for different runs, or ""."""
    for key, value in one.model_dump().items():
        if key not in _WHERE and value != getattr(other, key):
            return f"{key} ({getattr(other, key)!r}, not {value!r})"
    return ""


def unique_run_dir(recipe: Recipe) -> Path:
    """runs/DATA-MODEL-METHOD-sSEED, with a number behind it if that is taken."""
    parts = (recipe.data, recipe.model.split("/")[-1], recipe.method, f"s{recipe.seed}")
    name = "-".join(Path(part.split(":")[-1]).stem for part in parts)
    place, n = Path("runs") / name, 1
    while place.exists():
        n += 1
        place = Path("runs") / f"{name}-{n}"
    return place


def load_recipe(path: str | Path | None) -> Recipe:
    """The recipe of a run that exists."""
    if path is None:
        raise ConfigError("which run is to be resumed? name its directory")
    return parse(tomllib.loads(RunDirectory(Path(path)).recipe()))
