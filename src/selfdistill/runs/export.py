"""Export of a run's predictor at the run's image size or another one."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import STUDENT
from ..data import ImageData
from ..evaluation import EvaluationSession
from ..export.formats import check_format
from ..export.int8_options import Int8Options
from ..export.package import ExportResult, check_new, default_folder, export_run
from ..export.select_exit import select_exit
from ..functional.statistics import PairedDifference, paired_difference
from ..recipe.build_run import load_data
from ..recipe.data_check import as_trained
from ..records.exit_scores import ExitScore
from ..records.training_data import read_training_data
from ..tasks import check_network
from .paths import check_finished

if TYPE_CHECKING:
    from .run import Run


def export_trained(
    run: "Run",
    *,
    exit: str | int,
    format: str,
    out: str | Path | None,
    min_accuracy: float | None,
    max_macs: float | None,
    image_size: int | None,
    fuse: bool,
    int8: Int8Options | None,
    data: ImageData | None,
) -> ExportResult:
    """Write an exit or the student by itself; see `Run.export`."""
    check_finished(run.path)
    check_format(format)
    own_size = image_size in (None, run.recipe.image_size) or {image_size} == set(
        run.data.train.shape[-2:]
    )
    if data is None:
        resized = run.recipe.model_copy(update={"image_size": image_size})
        data = run.data if own_size else load_data(resized)
    if out:  # before all is evaluated, where the folder is known
        check_new(Path(out))
    elif exit != "auto":
        predictor = select_exit(run.exits, exit).predictor
        check_new(default_folder(run.path, predictor, format, data, fuse))
    result = export_run(
        run if own_size else replace(run, exits=_score_exits(run, data)),
        data,
        exit=exit,
        format=format,
        out=out,
        min_accuracy=min_accuracy,
        max_macs=max_macs,
        fuse=fuse,
        int8=int8,
    )
    predictor = result.exit_score.predictor
    return result._replace(difference=_difference(_session(run, data), predictor))


def _session(run: "Run", data: ImageData) -> EvaluationSession:
    """The run's session, on these data."""
    data = as_trained(run.path, read_training_data(run.path), data)
    return replace(run.session(), data=data)


def _score_exits(run: "Run", data: ImageData) -> list[ExitScore]:
    """Scores and costs of every predictor on the run's data at another image size."""
    session = _session(run, data)
    check_network(run.network, session.task)
    return session.score_exits()


def _difference(session: EvaluationSession, predictor: str) -> PairedDifference | None:
    """An exit's validation accuracy minus the student's, image by image."""
    if predictor == STUDENT or "val" not in session.splits:
        return None
    correct = session.evaluate_full("val").correct
    if not {predictor, STUDENT} <= correct.keys():
        return None
    return paired_difference(correct[predictor], correct[STUDENT])
