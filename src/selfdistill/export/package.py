"""Export of a run's predictor: a folder with the network in a file, and a model card."""

import copy
import json
from pathlib import Path
from typing import NamedTuple, Protocol

from ..core import (
    STUDENT,
    ArtifactError,
    Method,
    RunBusyError,
    Task,
    atomic_directory,
)
from ..core.fake_quantization import fake_quantized, remove_fake_quantization
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
from .extract_predictor import extract_predictor, learned_ranges
from .file_format import FileFormat
from .formats import load_format
from .fuse_batchnorm import FusedNetwork, fuse_batchnorm
from .int8_export import Int8Comparison
from .int8_options import Int8Options
from .model_card import CardData, model_card
from .select_exit import select_exit
from .verify import ExportVerification, verify_export

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
        file_format: of the file.
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
    file_format: FileFormat
    exit_score: ExitScore
    student_score: ExitScore
    verification: ExportVerification
    fused: FusedNetwork | None
    int8: Int8Comparison | None = None
    difference: PairedDifference | None = None

    def __repr__(self) -> str:
        return f"Export {self.file}\n  {self.exit_score.predictor} · {self.verification.summary}"


def default_folder(
    run_dir: Path, predictor: str, format: str, data: ImageData, fuse: bool = True
) -> Path:
    """export/PREDICTOR-FORMAT in a run, with the size and "unfused" where they are not usual."""
    name = f"{predictor}-{format}"
    own, size = read_training_data(run_dir).shape[-2:], data.train.shape[-2:]
    if own != size:
        name += f"-{size[0]}" if size[0] == size[1] else f"-{size[0]}x{size[1]}"
    if not fuse and load_format(format).holds_graph:
        name += "-unfused"
    return run_dir / "export" / name


def check_new(directory: Path) -> None:
    """Raise `RunBusyError` if a folder to export to exists already."""
    if directory.exists():
        raise RunBusyError(
            f"{directory} exists already; name another folder by --out, or remove it"
        )


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
        format: one of `formats.format_names`.
        out: the folder to create; None is `default_folder`.
        fuse: whether to fuse BatchNorm into the convolutions of a file that holds the graph.
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
    file_format = load_format(format)
    data = as_trained(run.path, read_training_data(run.path), data)
    student = next(score for score in run.exits if score.predictor == STUDENT)
    score = select_exit(run.exits, exit, min_accuracy=min_accuracy, max_macs=max_macs)
    file_format.check(run.method, score.predictor, data)
    directory = Path(out) if out else default_folder(run.path, score.predictor, format, data, fuse)
    check_new(directory)
    method = copy.deepcopy(run.method).cpu().eval()
    # what simulates int8 in training is no part of a file, and the table's scores are with it
    simulated = bool(fake_quantized(method))
    ranges = learned_ranges(method, score.predictor) if simulated else {}
    remove_fake_quantization(method)
    network = extract_predictor(method, score.predictor)
    fused = fuse_batchnorm(network) if fuse and file_format.holds_graph else None
    recipe, task = RunDirectory(run.path).recipe(), task_for(data)
    network = fused.network if fused else network
    with atomic_directory(directory) as draft:
        runner = file_format.write(network, draft, data, task, _metadata(score, data))
        verification = verify_export(method, score.predictor, runner, data, task)
        _require_agreement(verification, file_format)
        if not simulated:
            _require_score(verification, score, run.path)
        comparison = file_format.quantize(draft, verification, data, task, int8, ranges)
        made_of = composite_description(method)
        card = CardData(
            *(recipe, data, score, student, verification, file_format, fused, made_of, comparison)
        )
        (draft / "README.md").write_text(model_card(card), encoding="utf-8")
    file = directory / file_format.file
    return ExportResult(
        *(directory, file, file_format, score, student, verification, fused, comparison)
    )


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


def _require_agreement(verification: ExportVerification, file_format: FileFormat) -> None:
    if not verification.holds:
        raise ArtifactError(
            f"the {file_format.name} file says something else than the network in training "
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
