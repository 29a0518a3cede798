"""The page `report.html` of a run."""

from pathlib import Path
from typing import Any

import numpy as np

from ..core import STUDENT
from ..engine.run_directory import RunDirectory
from ..records import split_name
from ..tasks.metric_names import shown_metric
from .charts.heatmap import FEW, confusion_map
from .charts.reliability import FEW_IMAGES, confidence_histogram, reliability_diagram
from .charts.scatter import cost_scatter, measured_points, points
from .charts.style import Chart, palette
from .elements import two_columns
from .formatting import milliseconds
from .rendering import render
from .run_data import RunData, read_run
from .sample_images import embedded_mistakes, embedded_pictures, legend
from .summary import best_cheaper_exit, cards
from .tables import (
    classes_tables,
    exits_table,
    images_of,
    measured_table,
    pairs_table,
    timed_passes,
)
from .training_charts import (
    information_charts,
    is_jensen_shannon,
    loss_charts,
    monitor_charts,
    optimizer_charts,
    score_chart,
)


def write_report(run: RunDirectory) -> Path:
    """Write `report.html` into a run's directory, from the records there.

    What a run does not have (validation, exits, a confusion matrix) has no section.

    Raises:
        ConfigError: there is no run here.
        ArtifactError: a record of the run cannot be read.
        ResourceError: the page cannot be written.
    """
    return run.write("report.html", page(read_run(run)))


def page(run: RunData) -> str:
    """The whole document."""
    return render(
        "run.html.j2",
        name=run.name,
        run=run,
        colors=palette(run.stages),
        metric=shown_metric(run.metric),
        split=split_name(run.split),
        choosing_split=split_name(run.choosing_split),
        best_exit=best_cheaper_exit(run),
        cards=cards(run),
        exits=exits_table(run),
        accuracy_error=accuracy_error(run),
        pictures=embedded_pictures(run),
        mistakes=embedded_mistakes(run),
        legend=legend(run),
        scores=score_chart(run),
        costs=_cost_chart(run),
        measured=measured_table(run.measured) if run.measured else None,
        times=_time_chart(run),
        information=information_charts(run),
        jensen_shannon=is_jensen_shannon(run),
        losses=loss_charts(run),
        optimizer=optimizer_charts(run),
        classes=classes_tables(run.class_scores) if run.class_scores else [],
        monitors=monitor_charts(run),
        recipe=_recipe_tables(run.recipe),
        **_calibration(run),
        **_confusion(run),
    )


def _cost_chart(run: RunData) -> Chart | None:
    plotted = points(run, run.choosing_split)
    y_label = f"{split_name(run.choosing_split)} {shown_metric(run.metric)}"
    return cost_scatter(plotted, "cost", y_label) if len(plotted) > 1 else None


def _time_chart(run: RunData) -> Chart | None:
    """Score against the time of the first kind of pass that was measured."""
    measured = run.measured
    if measured is None or not (passes := timed_passes(measured)):
        return None
    split, (device, batch) = measured.choosing_split, passes[0]
    plotted = measured_points(measured, split, passes[0])
    x_label = f"milliseconds for {images_of(batch)}, {device}"
    y_label = f"{split_name(split)} {shown_metric(run.metric)}"
    if len(plotted) < 2:
        return None
    return cost_scatter(plotted, "time", y_label, x_label, milliseconds)


def _calibration(run: RunData) -> dict[str, Any]:
    table = run.calibration.get(STUDENT)
    if table is None or not table.images.sum():
        return {"calibration": None}
    return {
        "calibration": table,
        "calibrated_images": int(table.images.sum()),
        "few_images": FEW_IMAGES,
        "reliability": reliability_diagram(table, "reliability"),
        "confidence": confidence_histogram(table, "confidence"),
    }


def _confusion(run: RunData) -> dict[str, Any]:
    if run.confusion is None:
        return {"confusion": None}
    pixels = run.task.dense_scores
    split, count = confusion_split(run)
    return {
        "confusion": confusion_map(run.confusion, "confusion", in_percent=pixels),
        "confusion_split": split_name(split),
        "confusion_count": count,
        "pairs": pairs_table(run.confusion, "pixels" if pixels else "images"),
        "numbered_classes": len(run.confusion.classes) > FEW,
    }


def accuracy_error(run: RunData) -> tuple[str, int, float] | None:
    """(split, images, two standard errors of the full network's accuracy), if they are known."""
    split, images = confusion_split(run)
    if not images or run.score is None or not run.task.image_labels:
        return None
    error = 2 * float(np.sqrt(run.score * (1 - run.score) / images))
    return (split_name(split), images, error) if error else None


def confusion_split(run: RunData) -> tuple[str, int]:
    """The split that the confusion matrix is of, identified by its accuracy, and its sum.

    The sum is that of the images or, in tasks that label every pixel, of the pixels.
    """
    if run.confusion is None:
        return "", 0
    images = int(run.confusion.counts.sum())
    right = float(np.trace(run.confusion.counts)) / max(images, 1)
    for split in ("test", "val"):
        accuracy = _accuracy(run, split)
        if accuracy is not None and abs(accuracy - right) < 1e-4:
            return split, images
    return "", images


def _accuracy(run: RunData, split: str) -> float | None:
    """The full network's accuracy, which need not be the primary metric."""
    if run.task.image_labels:
        return run.student.score(split) if run.student else None
    accuracy: float | None = (run.final.get(split) or {}).get(STUDENT, {}).get("accuracy")
    return accuracy


def _recipe_tables(recipe: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    keys = {key: value for key, value in recipe.items() if key != "options"}
    tables = two_columns(keys, "Run")
    if options := recipe.get("options"):
        tables.append((f"Options of {recipe.get('method', '')}", options))
    return tables
