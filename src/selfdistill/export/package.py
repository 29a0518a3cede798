"""A run's predictor as a folder to pass on: the network in a file, and a model card."""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..core import (
    ArtifactError,
    ConfigError,
    DataError,
    Method,
    ResourceError,
    RunBusyError,
    SelfdistillError,
    Task,
    nearest,
)
from ..data import EvalLoader, ImageData
from ..engine import checkpoint
from ..engine.evaluate import evaluate
from ..engine.run_directory import RunDirectory
from ..modules.detector_output import Detections
from ..tasks import make_task
from .card import Facts, card
from .choose import chosen
from .deployed import Deployed
from .exits import ExitRow, exit_rows
from .fold import Folded, folded
from .network import bare
from .onnx_file import onnx_runner, write_onnx
from .program import program_runner, write_program
from .verify import Comparison, batch_of, compare
from .weights_file import with_weights, write_weights

FORMATS = ("onnx", "pt2", "safetensors")


class Trained(Protocol):
    """A finished run."""

    path: Path
    method: Method
    exits: list[ExitRow]


class Exported(NamedTuple):
    """What was written.

    Attributes:
        path: the folder.
        file: the network in it.
        row: the predictor that was taken.
        student: the whole network.
        comparison: of the file with the method.
        folded: what became of BatchNorm; None where it was left alone.
    """

    path: Path
    file: Path
    row: ExitRow
    student: ExitRow
    comparison: Comparison
    folded: Folded | None


def check_finished(path: Path) -> None:
    """Make sure that a run is there, at rest, and trained to the end.

    Raises:
        ConfigError: there is no run, or it was stopped before its end.
        RunBusyError: it is being trained now.
        ArtifactError: its checkpoints are corrupt or of a newer version.
    """
    directory = RunDirectory(path)
    directory.recipe()
    try:
        with directory.held():
            found = checkpoint.newest(directory.checkpoints)
    except RunBusyError:
        raise RunBusyError(f"{path} is being trained now; export it when it has ended") from None
    except ResourceError:  # nobody trains in a folder that cannot be written
        found = checkpoint.newest(directory.checkpoints)
    if found is None or not found.state["finished"] or not (path / "exits.csv").exists():
        raise ConfigError(
            f"{path} is not trained to the end; `selfdistill train --resume {path}` goes on with it"
        )


def as_trained(path: Path, data: ImageData) -> ImageData:
    """The data with the normalization that the run learned, whatever became of them since.

    Raises:
        DataError: they have other classes now.
        ArtifactError: the run's `data.json` cannot be read.
    """
    place = path / "data.json"
    try:
        facts = json.loads(place.read_text(encoding="utf-8"))
        classes, mean, std = list(facts["classes"]), tuple(facts["mean"]), tuple(facts["std"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ArtifactError(
            f"{place} cannot be read: without it nobody knows the normalization that the network "
            "learned; train it anew"
        ) from None
    if classes != data.classes:
        raise DataError(
            f"'{data.name}' has other classes than when {path} was trained; give the old data back"
        )
    return replace(data, mean=mean, std=std)


def task_of(data: ImageData) -> Task:
    """What the labels of the data mean."""
    return make_task(data.task, data.classes, data.train.shape)


def judged(run: Trained, data: ImageData) -> list[ExitRow]:
    """The exits of a run on images of another size than it was trained with.

    Args:
        run: trained; its method is not changed.
        data: at that size.

    Raises:
        ConfigError: the network does not take this size.
    """
    data = as_trained(run.path, data)
    method, example = copy.deepcopy(run.method).cpu().eval(), torch.zeros(2, *data.train.shape)
    _, height, width = data.train.shape
    try:
        with torch.no_grad():
            method.predict(example)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise ConfigError(
            f"the network cannot take images of {height}×{width} ({str(error).splitlines()[0]})"
        ) from error
    task, fabric = task_of(data), Fabric(accelerator="cpu", devices=1)
    scores = {
        part: evaluate(
            fabric,
            method,
            task,
            EvalLoader(images, batch_size=batch_of(data), mean=data.mean, std=data.std),
        )
        for part, images in (("val", data.val), ("test", data.test))
        if images is not None
    }
    return exit_rows(method, example, task.primary_metric, scores.get("val"), scores.get("test"))


def export_run(
    run: Trained,
    data: ImageData,
    *,
    exit: str | int = "auto",
    format: str = "onnx",
    out: str | Path | None = None,
    min_accuracy: float | None = None,
    max_macs: float | None = None,
    fold: bool = True,
) -> Exported:
    """Write one predictor by itself, and prove that it says what it said in training.

    The folder appears only when all of it is written and verified.

    Args:
        run: trained to the end, see `check_finished`; its method is not changed.
        data: that it was trained on, with images of the size that the file is to take.
        exit, min_accuracy, max_macs: which predictor, see `choose.chosen`.
        format: ``"onnx"``, ``"pt2"`` or ``"safetensors"``.
        out: the folder to make; None is export/PREDICTOR-FORMAT in the run's directory.
        fold: whether BatchNorm goes into the convolutions; safetensors keeps it always.

    Raises:
        ConfigError: no such exit or format, limits that nothing reaches, or a network that cannot
            be cut or written.
        RunBusyError: the folder exists.
        DataError: the data have other classes now.
        ArtifactError: the file says something else than the network did in training.
        ResourceError: the folder cannot be written.
    """
    if format not in FORMATS:
        raise ConfigError(f"there is no format '{format}'{nearest(format, FORMATS)}")
    data = as_trained(run.path, data)
    student = next(row for row in run.exits if row.predictor == "student")
    row = chosen(run.exits, exit, min_accuracy=min_accuracy, max_macs=max_macs)
    place = Path(out) if out else run.path / "export" / f"{row.predictor}-{format}"
    if place.exists():
        raise RunBusyError(f"{place} exists already; name another folder by --out, or remove it")
    method = copy.deepcopy(run.method).cpu().eval()
    network = bare(method, row.predictor)
    flat = folded(network) if fold and format != "safetensors" else None
    recipe, task = RunDirectory(run.path).recipe(), task_of(data)
    with _appearing(place) as draft:
        file = draft / f"model.{format}"
        notes = _notes(row, data)
        runner = _written(format, file, flat.network if flat else network, data, task, notes)
        comparison = compare(method, row.predictor, runner, data, task)
        _check(comparison, format)
        facts = Facts(recipe, data, row, student, comparison, format, file.name, flat)
        (draft / "README.md").write_text(card(facts), encoding="utf-8")
    return Exported(place, place / file.name, row, student, comparison, flat)


def _written(
    format: str,
    file: Path,
    network: nn.Module,
    data: ImageData,
    task: Task,
    notes: Mapping[str, str],
) -> Callable[[Tensor], Any]:
    """Write the file, and give what runs it as a user would."""
    if format == "safetensors":
        scale = {"mean": json.dumps(data.mean), "std": json.dumps(data.std)}
        write_weights(network, file, notes={**notes, **scale})
        again = with_weights(file, network)
        # outputs of a detector know by themselves how to become boxes
        again = task.inference_module(again) if task.class_scores else again
        return Deployed(again, data.mean, data.std).eval()
    names = ("logits",) if task.class_scores else Detections._fields
    write, runner = {
        "onnx": (partial(write_onnx, notes=notes, output_names=names), onnx_runner),
        "pt2": (partial(write_program, notes=notes), program_runner),
    }[format]
    write(Deployed(task.inference_module(network), data.mean, data.std).eval(), task.example, file)
    return runner(file)


def _notes(row: ExitRow, data: ImageData) -> dict[str, str]:
    """What code that has the file alone can know of it."""
    return {
        "classes": json.dumps(data.classes),
        "shape": json.dumps(data.train.shape),
        "predictor": row.predictor,
        "data": data.name,
    }


def _check(comparison: Comparison, format: str) -> None:
    if not comparison.holds:
        raise ArtifactError(
            f"the {format} file says something else than the network in training "
            f"({comparison.told}); it was not kept. Try --no-fold or another --format"
        )


@contextmanager
def _appearing(place: Path) -> Iterator[Path]:
    """A folder to write into, which takes its place when all went well, and else is gone."""
    draft = place.parent / f".{place.name}.{os.getpid()}"
    try:
        draft.mkdir(parents=True)
        yield draft
        draft.rename(place)
    except SelfdistillError:
        raise
    except OSError as error:
        raise ResourceError(f"{place} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
