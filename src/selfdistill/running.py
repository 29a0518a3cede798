"""A run from its recipe to what it leaves behind."""

import csv
import io
import json
import tomllib
import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from .core import ArtefactError, ConfigError, Method, SelfdistillError
from .data import ImageData, Loader
from .engine.evaluate import accuracy_of
from .engine.evaluate import evaluate as judge
from .engine.fit import Fit
from .engine.log import Display, Silent
from .engine.run_directory import RunDirectory
from .export.exits import ExitRow, exit_rows, from_csv, to_csv
from .recipe.build import (
    Company,
    Parts,
    assemble,
    eval_loader,
    make_fabric,
    settings_of,
    train_loader,
)
from .recipe.company import DATA_FILE, describe_data, fingerprint
from .recipe.schema import Recipe, parse, write
from .report.html import write_report


@dataclass
class Run:
    """What a training run left behind.

    Attributes:
        path: its directory.
        recipe: all that made it.
        method: trained, on its device, in evaluation mode.
        exits: accuracy and cost of every predictor, shallowest first.
    """

    path: Path
    recipe: Recipe
    method: Method = field(repr=False)
    exits: list[ExitRow]

    @property
    def network(self) -> nn.Module:
        """The trained student, as it was given: no heads, no critics."""
        return self.method.predictors()["student"]


def run_recipe(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    display: Display | None = None,
    data: ImageData | None = None,
    model: nn.Module | None = None,
    company: Company | None = None,
) -> Run:
    """Train what a recipe says; `train` is the comfortable way in."""
    if resume:
        recipe = recipe_of(out)
    fabric = make_fabric(recipe)
    fabric.launch()
    directory = RunDirectory(Path(fabric.broadcast(str(out or next_free(recipe)))))
    if not resume:
        directory.check_free()
    fabric.barrier()  # nobody writes before everybody has looked
    start = recipe.model_copy(update={"weights": ""}) if resume else recipe  # a checkpoint has them
    parts = assemble(start, data=data, model=model, company=company)
    recipe = parts.recipe.model_copy(update={"weights": recipe.weights})
    batches = train_loader(recipe, parts.data, parts.method, fabric)
    display = display if display and fabric.is_global_zero else Silent()
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
        display.begin(facts(recipe, parts, fabric, directory))
        if parts.teacher is not None:
            _introduce(parts.teacher, recipe, parts, fabric, directory, display)
        return _train(recipe, parts, batches, fabric, directory, display)


def facts(recipe: Recipe, parts: Parts, fabric: Fabric, directory: RunDirectory) -> dict[str, str]:
    """What a run is, in a line each."""
    data = parts.data
    splits = {"train": data.train, "val": data.val, "test": data.test}
    sizes = ", ".join(f"{len(images):,} {name}" for name, images in splits.items() if images)
    shape = " × ".join(str(side) for side in data.train.shape)
    several = f" × {fabric.world_size}" if fabric.world_size > 1 else ""
    return {
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


def _named_peers(parts: Parts) -> list[tuple[str, nn.Module]]:
    names = parts.recipe.peers or [parts.recipe.model] * len(parts.peers)
    return list(zip(names, parts.peers, strict=True))


_JURY = 10_000  # images that a teacher is judged by, at most


def _introduce(
    teacher: nn.Module,
    recipe: Recipe,
    parts: Parts,
    fabric: Fabric,
    directory: RunDirectory,
    display: Display,
) -> None:
    """Say how good the teacher is, and make sure that a resumed run has the one it began with."""
    mark, place = fingerprint(teacher), directory.path / "teacher.json"
    if fabric.broadcast(place.exists()):  # all processes must go the same way
        if json.loads(place.read_text(encoding="utf-8"))["sha256"] != mark:
            raise ArtefactError(
                f"teacher {recipe.teacher} is no longer the one that this run began with; "
                "give the old one back, or start a new run"
            )
        return
    data = parts.data
    images, kind = (data.val, "validation") if data.val is not None else (data.train, "training")
    images = images.take(torch.arange(min(len(images), _JURY)))
    scores = accuracy_of(fabric, teacher, parts.task, eval_loader(recipe, data, images, fabric))
    right = scores[parts.task.headline]
    display.say(f"the teacher gets {right:.1%} of {len(images):,} {kind} images right")
    if right < 2 / len(data.classes):
        warnings.warn(
            f"teacher {recipe.teacher} guesses: {right:.1%} is about chance; "
            "is it trained on these classes, in this order?",
            stacklevel=2,
        )
    about = {"teacher": recipe.teacher, "sha256": mark, "images": f"{len(images)} {kind}", **scores}
    if fabric.is_global_zero:
        directory.write(place.name, json.dumps(about, indent=1))


def _train(
    recipe: Recipe,
    parts: Parts,
    batches: Loader,
    fabric: Fabric,
    directory: RunDirectory,
    display: Display,
) -> Run:
    data, method = parts.data, parts.method
    val = eval_loader(recipe, data, data.val, fabric) if data.val else None
    settings = settings_of(recipe)
    fit = Fit(fabric, method, parts.task, batches, val, settings, directory, display)
    fit.run()
    display.say("judging the finished network")
    with fit.averaged():
        rows = _finish(recipe, parts, fabric, directory, fit.total)
    if fit.average:
        method.load_state_dict(fit.average.state, strict=False)
    return Run(directory.path, recipe, method.eval(), rows)


def _finish(
    recipe: Recipe, parts: Parts, fabric: Fabric, directory: RunDirectory, step: int
) -> list[ExitRow]:
    """Judge on validation and test images, once, and write the tables and the page."""
    data, task = parts.data, parts.task
    entry: dict[str, Any] = {"kind": "final", "step": step}
    details = {name: metric.to(fabric.device) for name, metric in task.details().items()}
    for name, images in (("val", data.val), ("test", data.test)):
        if images is not None:
            for metric in details.values():
                metric.reset()
            batches = eval_loader(recipe, data, images, fabric)
            entry[name] = judge(fabric, parts.method, task, batches, details)
    rows = exit_rows(parts.method, task.example, task.headline, entry.get("val"), entry.get("test"))
    matrices = {name: metric.compute().tolist() for name, metric in details.items()}
    if fabric.is_global_zero:
        directory.log(entry)
        directory.write("exits.csv", to_csv(rows))
        for name, matrix in matrices.items():
            directory.write(f"{name}.csv", _matrix_csv(task.classes, matrix))
        write_report(directory)
    return rows


def _matrix_csv(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def finished(recipe: Recipe, place: Path, **given: Any) -> list[ExitRow]:
    """The exits of the run at a place: read if it is finished, else resumed or trained.

    `given` are `run_recipe`'s objects (`data`, `model`, `company`, `display`).

    Raises:
        ConfigError: the run there was made by another recipe.
    """
    table = place / "exits.csv"
    begun = (place / "recipe.toml").exists()
    if begun and (other := _difference(recipe, recipe_of(place))):
        raise ConfigError(f"{place} holds a run with another {other}; name another directory")
    if not table.exists():
        run_recipe(recipe, out=place, resume=begun, **given)
    return from_csv(table.read_text(encoding="utf-8"))


# What decides where a run is made, and not what comes out of it.
_WHERE = {"device", "devices", "nodes", "workers", "data_root", "teacher_model"}


def _difference(one: Recipe, other: Recipe) -> str:
    """The first key in which two recipes ask for different runs, or ""."""
    for key, value in one.model_dump().items():
        if key not in _WHERE and value != getattr(other, key):
            return f"{key} ({getattr(other, key)!r}, not {value!r})"
    return ""


def next_free(recipe: Recipe) -> Path:
    """runs/DATA-MODEL-METHOD-sSEED, with a number behind it if that is taken."""
    parts = (recipe.data, recipe.model.split("/")[-1], recipe.method, f"s{recipe.seed}")
    name = "-".join(Path(part.split(":")[-1]).stem for part in parts)
    place, n = Path("runs") / name, 1
    while place.exists():
        n += 1
        place = Path("runs") / f"{name}-{n}"
    return place


def recipe_of(path: str | Path | None) -> Recipe:
    """The recipe of a run that exists."""
    if path is None:
        raise ConfigError("which run is to be resumed? name its directory")
    return parse(tomllib.loads(RunDirectory(Path(path)).recipe()))
