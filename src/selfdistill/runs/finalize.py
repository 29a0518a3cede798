"""What a finished run is evaluated by, and the tables and the page that it leaves."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ..core import MissingExtraError, ResourceError
from ..engine.callback import Callback
from ..engine.evaluate import EvaluationResult
from ..engine.run_directory import RunDirectory
from ..evaluation import EvaluationSession
from ..records import calibration, exit_scores
from ..records.calibration import CalibrationTable
from ..records.class_tables import CLASSES_FILE, ClassScores, ConfusionMatrix
from ..records.exit_scores import ExitScore
from ..reporting.sample_images import write_mistakes, write_pictures


def finalize(
    session: EvaluationSession, directory: RunDirectory, step: int, callback: Callback
) -> list[ExitScore]:
    """Evaluate every predictor on validation and test images, once, and write tables and page."""
    results = {split: session.evaluate_full(split) for split in session.splits}
    scores = {split: result.scores for split, result in results.items()}
    exits = session.exit_scores(scores)
    if session.fabric.is_global_zero:
        entry = {"kind": "final", "step": step, **scores}
        directory.log(entry)
        callback.on_result(entry)
        directory.write(exit_scores.FILE, exit_scores.to_csv(exits))
        with _warned("the tables of classes"):
            _write_details(directory, session.task.classes, results)
        with _warned("the pictures"):
            for split, images in list(session.splits.items())[-1:]:
                write_pictures(
                    directory, session.fabric, session.method, session.task, images, session.data
                )
                if len(results[split].confidence):
                    write_mistakes(directory, results[split], images, session.task.classes)
        with _warned("the report"):
            _write_report(directory, callback)
    return exits


@contextmanager
def _warned(what: str) -> Iterator[None]:
    """Context whose faults are warned of: the scores are written, and no training is lost."""
    try:
        yield
    except ResourceError:  # a resume writes everything once there is room
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        warnings.warn(
            f"the training is complete, but {what} could not be written ({reason}); "
            "`selfdistill train --resume` with the run's directory tries again",
            stacklevel=2,
        )


def _write_details(
    directory: RunDirectory, classes: Sequence[str], results: Mapping[str, EvaluationResult]
) -> None:
    """Calibration of all predictors, and the student's matrices on the last of the splits."""
    tables = {
        split: {n: CalibrationTable.from_tensor(t) for n, t in result.calibration.items()}
        for split, result in results.items()
    }
    if any(tables.values()):
        directory.write(calibration.FILE, calibration.to_csv(tables))
    for result in list(results.values())[-1:]:
        for name, matrix in result.matrices.items():
            directory.write(f"{name}.csv", ConfusionMatrix(classes, matrix.numpy()).to_csv())
        if columns := result.per_class:
            directory.write(CLASSES_FILE, ClassScores.from_tensors(classes, columns).to_csv())


def _write_report(directory: RunDirectory, callback: Callback) -> None:
    """Write the page, or say what it takes: a run is complete without it."""
    try:
        from ..reporting.run_page import write_report  # imports matplotlib, if it is installed

        write_report(directory)
    except MissingExtraError as error:
        callback.on_message(f"{error}; the tables of this run are complete without it")
