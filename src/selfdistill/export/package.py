"""Export of a run's predictor: a folder with the network in a file, and a model card."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from ..core import (
    STUDENT,
    ArtifactError,
    ConfigError,
    DataError,
    Method,
    RunBusyError,
    Task,
    atomic_directory,
    nearest,
)
from ..data import ImageData
from ..data.preparation import preparation_of
from ..engine.run_directory import RunDirectory
from ..modules.detector_output import Detections
from ..records.exit_scores import ExitScore
from ..records.training_data import read_training_data
from ..tasks import make_task, task_family
from .extract_predictor import extract_predictor
from .fuse_batchnorm import FusedNetwork, fuse_batchnorm
from .model_card import CardData, model_card
from .normalized_input import NormalizedInput
from .onnx_export import onnx_runner, write_onnx
from .safetensors_export import copy_with_weights, write_weights
from .select_exit import select_exit
from .torch_export import pt2_runner, write_pt2
from .verify import ExportVerification, verify_export

FORMATS = ("onnx", "pt2", "safetensors")


class TrainedRun(Protocol):
    """A finished run, as `runs.Run` is one."""

    path: Path
    method: Method
    exits: list[ExitScore]


class ExportResult(NamedTuple):
    """An exported predictor.

    Attributes:
        path: the folder.
        file: the network's file in it.
        exit_score: of the exported predictor.
        student_score: of the full network.
        verification: of the file against the method.
        fused: result of the BatchNorm fusion; None if there was none.
    """

    path: Path
    file: Path
    exit_score: ExitScore
    student_score: ExitScore
    verification: ExportVerification
    fused: FusedNetwork | None


def with_run_normalization(path: Path, data: ImageData) -> ImageData:
    """The data with the normalization of the run's training, even if they have changed since.

    Raises:
        DataError: the data have other classes now.
        ArtifactError: the run's `data.json` cannot be read.
    """
    trained_on = read_training_data(path)
    if trained_on.classes != data.classes:
        raise DataError(
            f"'{data.name}' has other classes than when {path} was trained; give the old data back"
        )
    return replace(data, mean=trained_on.mean, std=trained_on.std)


def task_for(data: ImageData) -> Task:
    """The task of the data."""
    return make_task(data.task, data.classes, data.train.shape)


def export_run(
    run: TrainedRun,
    data: ImageData,
    *,
    exit: str | int = "auto",
    format: str = "onnx",
    out: str | Path | None = None,
    min_accuracy: float | None = None,
    max_macs: float | None = None,
    fuse: bool = True,
) -> ExportResult:
    """Write one predictor as a file with a model card, verified against the method.

    The folder appears only when all of it is written and verified.

    Args:
        run: trained to the end, see `runs.paths.check_finished`; its method is not changed.
        data: of the run, at the image size of the file.
        exit, min_accuracy, max_macs: which predictor, see `select_exit`.
        format: ``"onnx"``, ``"pt2"`` or ``"safetensors"``.
        out: the folder to create; None is export/PREDICTOR-FORMAT in the run's directory.
        fuse: whether to fuse BatchNorm into the convolutions; safetensors always keeps it.

    Raises:
        ConfigError: no such exit or format, limits that no exit keeps, or a network that cannot be
            cut or written.
        RunBusyError: the folder exists.
        DataError: the data have other classes now.
        ArtifactError: the file's outputs differ from the method's.
        ResourceError: the folder cannot be written.
    """
    if format not in FORMATS:
        raise ConfigError(f"there is no format '{format}'{nearest(format, FORMATS)}")
    data = with_run_normalization(run.path, data)
    student = next(score for score in run.exits if score.predictor == STUDENT)
    score = select_exit(run.exits, exit, min_accuracy=min_accuracy, max_macs=max_macs)
    directory = Path(out) if out else run.path / "export" / f"{score.predictor}-{format}"
    if directory.exists():
        raise RunBusyError(
            f"{directory} exists already; name another folder by --out, or remove it"
        )
    method = copy.deepcopy(run.method).cpu().eval()
    network = extract_predictor(method, score.predictor)
    fused = fuse_batchnorm(network) if fuse and format != "safetensors" else None
    recipe, task = RunDirectory(run.path).recipe(), task_for(data)
    with atomic_directory(directory) as draft:
        file = draft / f"model.{format}"
        metadata, network = _metadata(score, data), fused.network if fused else network
        runner = _write_file(format, file, network, data, task, metadata)
        verification = verify_export(method, score.predictor, runner, data, task)
        _require_agreement(verification, format)
        card = CardData(recipe, data, score, student, verification, format, file.name, fused)
        (draft / "README.md").write_text(model_card(card), encoding="utf-8")
    return ExportResult(directory, directory / file.name, score, student, verification, fused)


def _write_file(
    format: str,
    file: Path,
    network: nn.Module,
    data: ImageData,
    task: Task,
    metadata: Mapping[str, str],
) -> Callable[[Tensor], Any]:
    """Write the file, and return it as a function of images, run as a user would run it."""
    if format == "safetensors":
        normalization = {"mean": json.dumps(data.mean), "std": json.dumps(data.std)}
        write_weights(network, file, metadata={**metadata, **normalization})
        loaded = copy_with_weights(file, network)
        # a detector's output decodes its boxes itself
        loaded = task.inference_module(loaded) if task.class_scores else loaded
        return NormalizedInput(loaded, data.mean, data.std).eval()
    names = ("logits",) if task.class_scores else Detections._fields
    write, runner = {
        "onnx": (partial(write_onnx, metadata=metadata, output_names=names), onnx_runner),
        "pt2": (partial(write_pt2, metadata=metadata), pt2_runner),
    }[format]
    write(
        NormalizedInput(task.inference_module(network), data.mean, data.std).eval(),
        task.example,
        file,
    )
    return runner(file)


def _metadata(score: ExitScore, data: ImageData) -> dict[str, str]:
    """Texts by name that the file holds."""
    return {
        "classes": json.dumps(data.classes),
        "task": task_family(data.task),
        "preparation": json.dumps(asdict(preparation_of(data))),
        "predictor": score.predictor,
        "data": data.name,
    }


def _require_agreement(verification: ExportVerification, format: str) -> None:
    if not verification.holds:
        raise ArtifactError(
            f"the {format} file says something else than the network in training "
            f"({verification.summary}); it was not kept. Try --no-fuse or another --format"
        )
