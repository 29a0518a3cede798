"""A run from its recipe to what it leaves behind."""

import json
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from ..core import (
    ArtifactError,
    ConfigError,
    SelfdistillError,
    load_tensors,
)
from ..data import ImageData, Loader
from ..engine.callback import Callback
from ..engine.evaluate import EvaluationResult, evaluate_full, evaluate_network
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
from ..recipe.teachers import (
    DATA_FILE,
    TEACHER_FILE,
    check_given_modules,
    describe_data,
    fingerprint,
)
from ..records.csv_text import csv_text
from ..records.exit_scores import (
    ExitScore,
    calibration_csv,
    from_csv,
    score_exits,
    to_csv,
)
from ..reporting.run_page import write_report
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
    callback: Callback | None = None,
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
    callback = callback if callback and fabric.is_global_zero else Callback()
    with ExitStack() as stack:
        fault: SelfdistillError | None = None
        if fabric.is_global_zero:
            try:
                stack.enter_context(directory.held())
                if not resume:
                    directory.begin(write(recipe))
                    directory.write(DATA_FILE, describe_data(parts.data))
            except SelfdistillError as error:
                fault = error
        if fault := fabric.broadcast(fault):  # the others would wait for the first for ever
            raise fault
        callback.on_start(run_summary(recipe, parts, fabric, directory))
        if parts.teacher is not None:
            _introduce(parts.teacher, recipe, parts, fabric, directory, callback)
        run = _train(recipe, parts, batches, fabric, directory, callback)
        callback.on_finish()
        return run


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
    callback: Callback,
) -> None:
    """Say how good the teacher is, and make sure that a resumed run has the one it began with."""
    mark, place = fingerprint(teacher), directory.path / TEACHER_FILE
    if fabric.broadcast(place.exists()):  # all processes must go the same way
        if json.loads(place.read_text(encoding="utf-8"))["sha256"] != mark:
            raise ArtifactError(
                f"teacher {recipe.teacher} is no longer the one that this run began with; "
                "give the old one back, or start a new run"
            )
        return
    scores, images, doubt = evaluate_teacher(teacher, recipe, parts, fabric)
    score, metric = scores[parts.task.primary_metric], shown_metric(parts.task.primary_metric)
    callback.on_message(
        f"the teacher gets {score:.1%} of {images} images right"
        if parts.task.image_labels
        else f"the teacher reaches {score:.1%} {metric} on {images} images"
    )
    if doubt:
        warnings.warn(doubt, stacklevel=2)
    about = {"teacher": recipe.teacher, "sha256": mark, "images": images, **scores}
    taps = (m for m in parts.method.modules() if isinstance(m, Taps) and m.network is teacher)
    about["taps"] = next((each.shapes for each in taps), {})
    if fabric.is_global_zero:
        directory.write(place.name, json.dumps(about, indent=1))


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
    callback: Callback,
) -> Run:
    data, method = parts.data, parts.method
    val = eval_loader(recipe, data, data.val, fabric) if data.val else None
    settings = training_settings(recipe)
    trainer = Trainer(fabric, method, parts.task, batches, val, settings, directory, callback)
    trainer.run()
    callback.on_message("judging the finished network")
    with trainer.ema_weights():
        rows = _finish(recipe, parts, fabric, directory, trainer.total_steps)
    if trainer.ema:
        load_tensors(method, trainer.ema.state, strict=False)
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
        directory.write("exits.csv", to_csv(rows))
        write_report(directory)
    return rows


def _write_details(
    directory: RunDirectory, classes: Sequence[str], verdicts: Mapping[str, EvaluationResult]
) -> None:
    """The calibration of all predictors, and the student's matrices on the last of the splits."""
    tables = {name: verdict.calibration for name, verdict in verdicts.items()}
    if any(tables.values()):
        directory.write("calibration.csv", calibration_csv(tables))
    for verdict in list(verdicts.values())[-1:]:
        for name, matrix in verdict.matrices.items():
            directory.write(f"{name}.csv", csv_text(classes, matrix.tolist()))
        if columns := verdict.per_class:
            cells = zip(classes, *(column.tolist() for column in columns.values()), strict=True)
            rows = ([None if cell != cell else cell for cell in row] for row in cells)  # nan
            directory.write("classes.csv", csv_text(["class", *columns], rows))


def load_or_train_exits(recipe: Recipe, place: Path, **given: Any) -> list[ExitScore]:
    """The exits of the run at a place: read if it is finished, else resumed or trained.

    `given` are `train_recipe`'s objects (`data`, `model`, `company`, `callback`).

    Raises:
        ConfigError: the run there was made by another recipe.
    """
    table = place / "exits.csv"
    begun = (place / "recipe.toml").exists()
    if begun and (other := first_difference(recipe, load_recipe(place))):
        raise ConfigError(f"{place} holds a run with another {other}; name another directory")
    if not table.exists():
        train_recipe(recipe, out=place, resume=begun, **given)
    return from_csv(table.read_text(encoding="utf-8"))


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
