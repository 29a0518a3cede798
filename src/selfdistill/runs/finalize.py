"""What a finished run is judged by, and the tables and the page that it leaves."""

from collections.abc import Mapping, Sequence

from ..engine.evaluate import EvaluationResult
from ..engine.run_directory import RunDirectory
from ..evaluation import EvaluationSession
from ..records.csv_text import csv_text
from ..records.exit_scores import ExitScore, calibration_csv, to_csv
from ..reporting.run_page import write_report
from ..reporting.sample_images import write_pictures


def finalize(session: EvaluationSession, directory: RunDirectory, step: int) -> list[ExitScore]:
    """Judge every predictor on validation and test images, once, and write tables and page."""
    results = {split: session.evaluate_full(split) for split in session.splits}
    scores = {split: result.scores for split, result in results.items()}
    exits = session.exit_scores(dict(scores))
    if session.fabric.is_global_zero:
        directory.log({"kind": "final", "step": step, **scores})
        _write_details(directory, session.task.classes, results)
        for images in list(session.splits.values())[-1:]:
            write_pictures(
                directory, session.fabric, session.method, session.task, images, session.data
            )
        directory.write("exits.csv", to_csv(exits))
        write_report(directory)
    return exits


def _write_details(
    directory: RunDirectory, classes: Sequence[str], results: Mapping[str, EvaluationResult]
) -> None:
    """Calibration of all predictors, and the student's matrices on the last of the splits."""
    tables = {split: result.calibration for split, result in results.items()}
    if any(tables.values()):
        directory.write("calibration.csv", calibration_csv(tables))
    for result in list(results.values())[-1:]:
        for name, matrix in result.matrices.items():
            directory.write(f"{name}.csv", csv_text(classes, matrix.tolist()))
        if columns := result.per_class:
            cells = zip(classes, *(column.tolist() for column in columns.values()), strict=True)
            rows = ([None if cell != cell else cell for cell in row] for row in cells)  # nan
            directory.write("classes.csv", csv_text(["class", *columns], rows))
