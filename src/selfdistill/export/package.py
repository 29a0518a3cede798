"""Export of a run's predictor: a folder with the network in a file, and a model card."""

import copy
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from ..core import (
    STUDENT,
    ArtifactError,
    ConfigError,
    Method,
    RunBusyError,
    Task,
    atomic_directory,
    nearest,
)
from ..data import ImageData
from ..data.preparation import preparation_of
from ..engine.run_directory import RunDirectory
from ..functional.statistics import PairedDifference
from ..modules.composite import composite_description
from ..recipe.data_check import as_trained
from ..records.exit_scores import FILE as EXITS_FILE
from ..records.exit_scores import ExitScore
from ..records.training_data import read_training_data
from ..tasks import make_task, task_family
from .extract_predictor import extract_predictor
from .fuse_batchnorm import FusedNetwork, fuse_batchnorm
from .int8_export import Int8Comparison, check_calibratable, write_int8
from .int8_options import INT8, Int8Options
from .model_card import CardData, model_card
from .normalized_input import NormalizedInput
from .onnx_export import onnx_runner, write_onnx
from .safetensors_export import copy_with_weights, write_weights
from .select_exit import select_exit
from .timm_export import check_timm_network, write_timm
from .torch_export import pt2_runner, write_pt2
from .verify import ExportVerification, verify_export

FILES = {
    "onnx": "model.onnx",
    INT8: "model.onnx",
    "pt2": "model.pt2",
    "safetensors": "model.safetensors",
    "timm": "model.safetensors",
}
"""{format: name of the network's file}."""
_GRAPHS = ("onnx", INT8, "pt2")  # where BatchNorm may be fused; others keep the network's own keys
_SCORE_TOLERANCE = 0.02


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
        int8: the file in int8 beside the one in float32; None of other formats.
        difference: from the student, over the validation images; None of the student itself,
            without validation images, and where the score is no share of right answers.
    """

    path: Path
    file: Path
    exit_score: ExitScore
    student_score: ExitScore
    verification: ExportVerification
    fused: FusedNetwork | None
    int8: Int8Comparison | None = None
    difference: PairedDifference | None = None


def default_folder(
    run_dir: Path, predictor: str, format: str, data: ImageData, fuse: bool = True
) -> Path:
    """export/PREDICTOR-FORMAT in a run, with the size and "unfused" where they are not usual."""
    name = f"{predictor}-{format}"
    own, size = read_training_data(run_dir).shape[-2:], data.train.shape[-2:]
    if own != size:
        name += f"-{size[0]}" if size[0] == size[1] else f"-{size[0]}x{size[1]}"
    if not fuse and format in _GRAPHS:
        name += "-unfused"
    return run_dir / "export" / name


def check_new(directory: Path) -> None:
    """Raise `RunBusyError` if a folder to export to exists already."""
    if directory.exists():
        raise RunBusyError(
            f"{directory} exists already; name another folder by --out, or remove it"
        )


def check_format(format: str) -> None:
    """Raise `ConfigError` if there is no such format."""
    if format not in FILES:
        raise ConfigError(f"there is no format '{format}'{nearest(format, FILES)}")


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
    int8: Int8Options | None = None,
) -> ExportResult:
    """Write one predictor as a file with a model card, verified against the method.

    The folder appears only when all of it is written and verified.

    Args:
        run: trained to the end, see `runs.paths.check_finished`; its method is not changed.
        data: of the run, at the image size of the file.
        exit, min_accuracy, max_macs: which predictor, see `select_exit`.
        format: ``"onnx"``, ``"onnx-int8"``, ``"pt2"``, ``"safetensors"`` or ``"timm"``.
        out: the folder to create; None is `default_folder`.
        fuse: whether to fuse BatchNorm into the convolutions of an ONNX or pt2 file.
        int8: what a file in int8 may lose; None is what `Int8Options` has.

    Raises:
        ConfigError: no such exit or format, limits that no exit and no file in int8 keeps, or a
            network that cannot be cut, or written in this format.
        RunBusyError: the folder exists.
        DataError: the data have other classes now.
        ArtifactError: the file's outputs differ from the method's, or its score from that of the
            table of exits.
        ResourceError: the folder cannot be written.
    """
    check_format(format)
    data = as_trained(run.path, read_training_data(run.path), data)
    student = next(score for score in run.exits if score.predictor == STUDENT)
    score = select_exit(run.exits, exit, min_accuracy=min_accuracy, max_macs=max_macs)
    if format == "safetensors" and (made_of := composite_description(run.method)):
        raise ConfigError(
            f"weights alone need code that builds their network, and there is none for {made_of}; "
            "take --format onnx or pt2, which hold it whole"
        )
    if format == INT8:
        check_calibratable(data)
    if format == "timm":
        check_timm_network(run.method, score.predictor)
    directory = Path(out) if out else default_folder(run.path, score.predictor, format, data, fuse)
    check_new(directory)
    method = copy.deepcopy(run.method).cpu().eval()
    network = extract_predictor(method, score.predictor)
    fused = fuse_batchnorm(network) if fuse and format in _GRAPHS else None
    recipe, task = RunDirectory(run.path).recipe(), task_for(data)
    kind, comparison = "onnx" if format == INT8 else format, None
    with atomic_directory(directory) as draft:
        file = written = draft / FILES[format]
        if format == INT8:
            written = draft / "float32.onnx"
        metadata, network = _metadata(score, data), fused.network if fused else network
        runner = _write_file(kind, written, network, data, task, metadata)
        verification = verify_export(method, score.predictor, runner, data, task)
        _require_agreement(verification, kind)
        _require_score(verification, score, run.path)
        if format == INT8:
            options = int8 or Int8Options()
            comparison = write_int8(written, file, verification, data, task, options)
            written.unlink()
        made_of = composite_description(method)
        card = CardData(
            *(recipe, data, score, student, verification, kind, file.name, fused, made_of),
            comparison,
        )
        (draft / "README.md").write_text(model_card(card), encoding="utf-8")
    file = directory / file.name
    return ExportResult(directory, file, score, student, verification, fused, comparison)


def _write_file(
    format: str,
    file: Path,
    network: nn.Module,
    data: ImageData,
    task: Task,
    metadata: Mapping[str, str],
) -> Callable[[Tensor], Any]:
    """Write the file, and return it as a function of images, run as a user would run it."""
    sides = len(data.train.shape) - 1
    normalization = {"mean": json.dumps(data.mean), "std": json.dumps(data.std)}
    if format == "timm":
        labels = list(data.classes) if task.class_scores else []
        return write_timm(
            network, file, data, label_names=labels, metadata={**metadata, **normalization}
        )
    if format == "safetensors":
        write_weights(network, file, metadata={**metadata, **normalization})
        loaded = copy_with_weights(file, network)
        # a detector's output decodes its boxes itself
        loaded = task.inference_module(loaded) if task.class_scores else loaded
        return NormalizedInput(loaded, data.mean, data.std, sides).eval()
    write, runner = {
        "onnx": (
            partial(write_onnx, metadata=metadata, output_names=task.output_names),
            onnx_runner,
        ),
        "pt2": (partial(write_pt2, metadata=metadata), pt2_runner),
    }[format]
    write(
        NormalizedInput(task.inference_module(network), data.mean, data.std, sides).eval(),
        task.example,
        file,
    )
    return runner(file)


def _metadata(score: ExitScore, data: ImageData) -> dict[str, str]:
    """Texts by name that the file holds."""
    return {
        "classes": json.dumps(data.classes),
        "task": task_family(data.task),
        "preparation": json.dumps(preparation_of(data).to_fields()),
        "predictor": score.predictor,
        "parameters": str(score.parameters),
        "macs": str(score.macs),
        "data": data.name,
    }


def _require_agreement(verification: ExportVerification, format: str) -> None:
    if not verification.holds:
        raise ArtifactError(
            f"the {format} file says something else than the network in training "
            f"({verification.summary}); it was not kept. Try --no-fuse or another --format"
        )


def _require_score(verification: ExportVerification, score: ExitScore, run_dir: Path) -> None:
    """Refuse a file that scores otherwise than the table that its card shows."""
    expected = score.score(verification.split) if verification.score is not None else None
    if verification.score is None or expected is None:
        return
    # The table may be of bf16 or of another device, where a few images fall otherwise.
    tolerance = _SCORE_TOLERANCE + 2 / verification.images
    if abs(verification.score - expected) > tolerance:
        raise ArtifactError(
            f"the file reaches {verification.score:.1%} on the {verification.split} images and "
            f"{run_dir / EXITS_FILE} says {expected:.1%}: the table, or the images, are not those "
            f"of the training; it was not kept. train --resume {run_dir} scores the run anew"
        )
