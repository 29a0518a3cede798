"""The sections on what a run came to: score, cost, calibration, classes, confusion."""

from html import escape

import numpy as np

from . import plots
from .curves import Curve, scores
from .formatting import (
    metric,
    milliseconds,
    percent,
    thousands,
    titled,
)
from .heatmap import FEW, confusion_map
from .layout import figure, note, pair, section
from .reliability import FEW_IMAGES, confidence_histogram, reliability_diagram
from .run_data import (
    LAST,
    Confusion,
    RunData,
    stage,
)
from .scatter import cost_scatter, measured_points, points
from .summary import chooser
from .tables import classes_table, exits_table, measured_table, pairs_table


def exits(contents: RunData) -> str:
    """Accuracy and cost of all predictors."""
    if not contents.exits:
        return ""
    title, said = titled(f"{metric(contents)} and cost"), ""
    if len(contents.exits) > 1:
        title += " of every exit" if _has_exits(contents) else " of every network"
        said = "Multiply-adds and parameters are those of the network that is exported for this row"
        said += ": for an exit the stages up to it and its head." if _has_exits(contents) else "."
        if chooser(contents) == "validation":
            said += " The Pareto front is that of the validation "
            said += f"{metric(contents)}."
    return section(title, exits_table(contents), note(said), note(_certainty(contents)))


def _has_exits(contents: RunData) -> bool:
    if not contents.exits:  # the run was killed before it was judged
        return contents.stages > 0
    return any(stage(row.name) for row in contents.exits)


def _certainty(contents: RunData) -> str:
    """How far apart two accuracies must be to mean something, if the number of images is known."""
    split, images = judged_by(contents)
    if not images or contents.score is None or not contents.task.image_labels:
        return ""
    error = 2 * np.sqrt(contents.score * (1 - contents.score) / images)
    if error == 0:
        return ""
    return (
        f"With {thousands(images)} {split} images, the full network's accuracy is known to about "
        f"± {100 * error:.1f} points; smaller differences may be chance."
    )


def judged_by(contents: RunData) -> tuple[str, int]:
    """What the confusion matrix is of: which images, told by the accuracy, and how many.

    Where every pixel is judged they are counted, not the images.
    """
    if contents.confusion is None:
        return "", 0
    images = int(contents.confusion.counts.sum())
    right = float(np.trace(contents.confusion.counts)) / max(images, 1)
    for split in ("test", "validation"):
        score = _accuracy_of(contents, split)
        if score is not None and abs(score - right) < 1e-4:
            return split, images
    return "", images


def _accuracy_of(contents: RunData, split: str) -> float | None:
    """The whole network's share of right answers, which need not be what the run is judged by."""
    if contents.task.image_labels:
        return contents.last.score(split) if contents.last else None
    judged = contents.final.get("test" if split == "test" else "val") or {}
    found: float | None = judged.get(LAST, {}).get("accuracy")
    return found


def progress(contents: RunData) -> str:
    """The score over epochs, and against cost."""
    if not contents.epochs:
        return section("Training", "<p>No epoch was finished, so there is nothing to show yet.</p>")
    curves = [c for c in scores(contents) if len(c.x)]
    figures = [_over_epochs(contents, curves)] if curves else []
    split, word = chooser(contents), metric(contents)
    judged = points(contents, split)
    if len(judged) > 1:
        drawn = cost_scatter(judged, "cost", f"{split} {word}")
        figures.append(figure(drawn, titled(f"{word} against cost"), _scatter_caption(contents)))
    title = f"{word}, and what depth buys" if _has_exits(contents) else word
    return section(titled(title), pair(figures))


def _scatter_caption(contents: RunData) -> str:
    up, like = ("more accurate", "accurate") if contents.task.image_labels else ("better", "good")
    return (
        f"Up is {up}, left is cheaper. Full points are the Pareto front: nothing is both as cheap "
        f"and as {like} as they are, and better in one of the two."
    )


def _over_epochs(contents: RunData, curves: list[Curve]) -> str:
    late, judged = len(contents.epochs) >= 10, f"validation {metric(contents)}"
    drawn = plots.lines(curves, contents.metric, judged, x_label="epoch", value=percent, late=late)
    caption = "After each epoch, on images that were not trained on."
    if late:
        caption += " The lowest tenth of the points is cut off, to show how the exits end."
    return figure(drawn, titled(f"{judged} over epochs"), caption)


def measured(contents: RunData) -> str:
    """What `selfdistill exits` found: size, time, and the difference from the baseline."""
    found = contents.measured
    if found is None:
        return ""
    about, split = found.about, found.split
    said = f"By selfdistill exits, on {about['machine']}; torch {about['torch']}, eager, fp32. "
    said += "Times are medians of whole passes, sizes those of safetensors files. "
    if about["baseline"]:
        said += f"Differences are in points from {about['baseline']}, with 95 % intervals over the "
        said += "images. "
    said += f"Note: {about['notes']}." if about["notes"] else ""
    parts = [measured_table(found), note(escape(said))]
    for which in found.passes[:1]:
        judged = measured_points(found, split, which)
        if len(judged) > 1:
            device, images = which
            x_label = f"milliseconds for {images} image{'s' * (images > 1)}, {device}"
            word = metric(contents)
            drawn = cost_scatter(judged, "time", f"{split} {word}", x_label, milliseconds)
            title = titled(f"{word} against time")
            parts.append(pair([figure(drawn, title, _scatter_caption(contents))]))
    return section("Size and time", *parts)


def calibration(contents: RunData) -> str:
    """Whether the full network is as often right as it is sure."""
    table = contents.calibration.get(LAST)
    if table is None or not table.images.sum():
        return ""
    said = f"The full network on {thousands(int(table.images.sum()))} {contents.split} images: its "
    said += f"confidence is off by {100 * table.error:.2f} points in the mean over the images "
    said += "(expected calibration error)."
    said += " The first table has that of the others." if len(contents.exits) > 1 else ""
    bars = "Gray is the share that is right among the images of one confidence, orange the gap "
    bars += "between the two: on top of the gray it is too sure, over the gray too modest. "
    bars += f"Pale bars hold fewer than {FEW_IMAGES} images."
    spread = "All images by confidence. Where the orange line is right of the black one, the "
    spread += "network is too sure on the whole."
    figures = [
        figure(reliability_diagram(table, "reliability"), "Reliability", bars),
        figure(confidence_histogram(table, "confidence"), "How sure it is", spread),
    ]
    return section("Calibration", note(said), pair(figures))


def classes(contents: RunData) -> str:
    """What is known of each class."""
    if contents.by_class is None:
        return ""
    said = f"The full network on the {contents.split} images."
    said += " A dash stands where there is nothing of a class to judge."
    return section("Each class", note(said), classes_table(contents.by_class))


def confusion(contents: RunData) -> str:
    """Which class the full network takes for which."""
    if contents.confusion is None:
        return ""
    split, count = judged_by(contents)
    pixels = contents.task.dense_scores
    drawn = figure(
        confusion_map(contents.confusion, "confusion", in_percent=pixels),
        "Which class is taken for which",
        _confusion_caption(contents.confusion, pixels=pixels),
    )
    of = "pixels" if pixels else "images"
    pairs = pairs_table(contents.confusion, of) or "<p>There are none.</p>"
    table = f"<figure><h3>Most frequent mistakes</h3>{pairs}</figure>"
    judged = f"pixels of the {split} images" if pixels and split else f"{split} {of}"
    said = f"The full network on {thousands(count)} {judged}."
    return section("Confusion", note(said), pair([drawn, table]))


def _confusion_caption(confusion: Confusion, *, pixels: bool) -> str:
    hit, miss = (f'<i class="swatch square {kind}"></i>' for kind in ("hit", "miss"))
    text = f"Rows are the true classes. {hit}right, {miss}mistaken; stronger is a larger part of "
    text += "the row. Mistakes are shown stronger than hits, or the rare ones would not be seen."
    if len(confusion.classes) > FEW:
        text += " Classes are numbered in their own order, from 0."
    elif pixels:
        text += " Numbers are percent of the row."
    return text
