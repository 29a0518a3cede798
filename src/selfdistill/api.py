"""Training as a function call: what `import selfdistill` offers and what the command calls."""

import csv
import io
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from .core import ConfigError, Method, SelfdistillError
from .data import ImageData, Loader
from .engine import checkpoint
from .engine.evaluate import evaluate as judge
from .engine.fit import Fit
from .engine.log import Display, Silent
from .engine.run_directory import RunDirectory
from .engine.state import restore_method
from .export.exits import ExitRow, exit_rows, from_csv, to_csv
from .recipe.build import (
    Parts,
    assemble,
    eval_loader,
    make_fabric,
    settings_of,
    train_loader,
)
from .recipe.schema import Recipe, parse, read, write
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


def train(
    *,
    model: str | nn.Module | None = None,
    data: str | ImageData | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    recipe: str | Path | None = None,
    display: Display | None = None,
    **keys: Any,
) -> Run:
    """Train a network.

    Args:
        model: a name (`selfdistill models`) or any module, which is trained in place; None is the
            recipe's.
        data: a name, ``folder:PATH``, ``npz:PATH`` or an `ImageData`; None is the recipe's.
        out: the run's directory; None takes the next free one in runs/.
        resume: go on with the run in `out`, by its own recipe; of the rest only `model` and `data`
            objects need be given again.
        recipe: a TOML file to start from.
        display: who is shown the progress; None is nobody.
        keys: any key of a recipe, and the method's own options by their names.

    Returns:
        The run, judged on validation and test images.

    Example:
        >>> run = train(method="muse", data="digits", epochs=20)  # doctest: +SKIP
        >>> run.exits[0].test_accuracy, run.network  # doctest: +SKIP
    """
    if isinstance(model, nn.Module):
        keys["model"] = type(model).__name__
    elif model is not None:
        keys["model"], model = model, None
    if isinstance(data, ImageData):
        keys["data"] = data.name
    elif data is not None:
        keys["data"], data = data, None
    chosen = parse(merged(read(Path(recipe)) if recipe else {}, keys))
    return run_recipe(chosen, out=out, resume=resume, display=display, data=data, model=model)


def merged(base: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's dictionary with keys put over it; what is no key of a recipe is the method's."""
    options = base.get("options", {})
    if not isinstance(options, Mapping):
        raise ConfigError(f"[options] of a recipe is a table, not {options!r}")
    result = {**base, "options": dict(options)}
    for key, value in keys.items():
        if key == "options":
            result["options"] |= value
        elif key in Recipe.model_fields:
            result[key] = value
        else:
            result["options"][key] = value
    return result


def run_recipe(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    display: Display | None = None,
    data: ImageData | None = None,
    model: nn.Module | None = None,
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
    parts = assemble(start, data=data, model=model)
    batches = train_loader(recipe, parts.data, parts.method, fabric)
    display = display if display and fabric.is_global_zero else Silent()
    with ExitStack() as stack:
        fault: SelfdistillError | None = None
        if fabric.is_global_zero:
            try:
                stack.enter_context(directory.held())
                if not resume:
                    directory.begin(write(recipe))
            except SelfdistillError as error:
                fault = error
        if fault := fabric.broadcast(fault):  # the others would wait for the first for ever
            raise fault
        display.begin(facts(recipe, parts, fabric, directory))
        return _train(recipe, parts, batches, fabric, directory, display)


def facts(recipe: Recipe, parts: Parts, fabric: Fabric, directory: RunDirectory) -> dict[str, str]:
    """What a run is, in a line each."""
    data = parts.data
    splits = {"train": data.train, "val": data.val, "test": data.test}
    sizes = ", ".join(f"{len(images):,} {name}" for name, images in splits.items() if images)
    shape = " × ".join(str(side) for side in data.train.shape)
    parameters = sum(p.numel() for p in parts.network.parameters())
    several = f" × {fabric.world_size}" if fabric.world_size > 1 else ""
    return {
        "method": recipe.method,
        "network": f"{recipe.model}, {parameters:,} parameters",
        "data": f"{data.name}: {sizes}; {len(data.classes)} classes, {shape}",
        "device": f"{fabric.device.type}{several}, {recipe.precision}",
        "run": str(directory.path),
    }


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


def load(path: str | Path, *, data: ImageData | None = None, model: nn.Module | None = None) -> Run:
    """A run from its directory, with the weights of its newest checkpoint.

    Args:
        path: the run's directory.
        data, model: the objects that the run was made with, if they were no names.

    Raises:
        ConfigError: there is no run, or nothing was saved yet.
        ArtefactError: its checkpoints are corrupt or of a newer version.
    """
    recipe, directory = recipe_of(path), RunDirectory(Path(path))
    found = checkpoint.newest(directory.checkpoints)
    if found is None:
        raise ConfigError(f"{path} has no checkpoint yet")
    parts = assemble(recipe.model_copy(update={"weights": ""}), data=data, model=model)
    restore_method(parts.method, found, average=True)
    table = directory.path / "exits.csv"
    rows = from_csv(table.read_text(encoding="utf-8")) if table.exists() else []
    return Run(directory.path, recipe, parts.method.eval(), rows)
