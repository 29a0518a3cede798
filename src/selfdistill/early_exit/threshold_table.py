"""The table of early-exit inference: accuracy, cost and latency by thresholds."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..core import DataError, Method
from ..data import ImageData
from ..export.extract_predictor import extract_predictor
from ..records.csv_text import csv_text
from .network import (
    build_early_exit_network,
    collect_exit_decisions,
    early_exits,
    exit_costs,
    time_exits,
)
from .thresholds import (
    ExitCosts,
    ExitDecisions,
    Threshold,
    ThresholdOutcome,
    calibrate_thresholds,
    threshold_outcome,
)

FILE = "anytime.csv"
"""Name of the table in a run's directory."""


class HeldOutDecisions(NamedTuple):
    """Decisions of a method's exits on the held-out images.

    Attributes:
        exits: their names, shallowest first.
        costs: of the exits.
        splits: {"val": ..., "test": ...}, as far as the data have them.
    """

    exits: tuple[str, ...]
    costs: ExitCosts
    splits: dict[str, ExitDecisions]


class ThresholdRow(NamedTuple):
    """One choice of thresholds.

    Attributes:
        max_loss: allowed loss of the calibration; None if the thresholds were given.
        thresholds: one for each exit; all None is the student without exits.
        outcomes: accuracy and cost on each split.
        seconds: mean time per image of the last split; None if not measured.
    """

    max_loss: float | None
    thresholds: tuple[Threshold, ...]
    outcomes: dict[str, ThresholdOutcome]
    seconds: float | None = None

    @property
    def reported(self) -> ThresholdOutcome:
        """Outcome on the test images or, without these, on the validation images."""
        return list(self.outcomes.values())[-1]


def held_out_decisions(method: Method, data: ImageData, *, workers: int = 0) -> HeldOutDecisions:
    """Decisions of all exits on the validation and the test images.

    Args:
        method: trained, in evaluation mode.
        data: of its run.
        workers: processes that decode files.

    Raises:
        ConfigError: the method has no exits.
        DataError: there are neither validation nor test images.
    """
    exits = tuple(early_exits(method))
    held_out = {"val": data.val, "test": data.test}
    splits = {
        name: collect_exit_decisions(method, data, images, workers=workers)
        for name, images in held_out.items()
        if images is not None
    }
    if not splits:
        raise DataError(f"'{data.name}' has neither validation nor test images to evaluate by")
    example = torch.zeros(1, *data.train.shape, device=next(method.parameters()).device)
    return HeldOutDecisions(exits, exit_costs(method, example), splits)


def calibrated_row(decisions: HeldOutDecisions, max_loss: float) -> ThresholdRow:
    """The cheapest thresholds with a loss of at most `max_loss` on the validation images.

    Raises:
        ConfigError: see `calibrate_thresholds`.
        DataError: there are no validation images.
    """
    if "val" not in decisions.splits:
        raise DataError(
            "thresholds are chosen on validation images, and the run held none out; "
            "give them by --threshold"
        )
    thresholds = calibrate_thresholds(decisions.splits["val"], decisions.costs, max_loss)
    return threshold_row(decisions, thresholds, max_loss)


def threshold_row(
    decisions: HeldOutDecisions, thresholds: tuple[Threshold, ...], max_loss: float | None = None
) -> ThresholdRow:
    """Accuracy and cost of thresholds; all None is the student without exits."""
    outcomes = {
        name: threshold_outcome(split, decisions.costs, thresholds)
        for name, split in decisions.splits.items()
    }
    return ThresholdRow(max_loss, thresholds, outcomes)


def with_latencies(
    rows: Sequence[ThresholdRow], method: Method, data: ImageData, *, seconds: float
) -> list[ThresholdRow]:
    """The rows with the mean time of a single image, on the method's device.

    The time to each exit is measured, interleaved with all others, and weighted with the share of
    the images that leave there.

    Args:
        rows: of this method.
        method: trained.
        data: sets the image size.
        seconds: for all measurements.
    """
    latencies = time_exits(
        [build_early_exit_network(method, row.thresholds) for row in rows],
        extract_predictor(method, "student"),  # without the overhead of taps
        torch.zeros(1, *data.train.shape),
        device=next(method.parameters()).device,
        seconds=seconds,
    )
    timed = []
    for row, per_exit in zip(rows, latencies.per_exit, strict=True):
        pairs = zip([*row.thresholds, 1.0], row.reported.shares, strict=True)
        shares = [share for t, share in pairs if t is not None]
        mean = sum(share * time for share, time in zip(shares, per_exit, strict=True))
        no_exits = len(shares) == 1
        timed.append(row._replace(seconds=latencies.student if no_exits else mean))
    return timed


def threshold_warnings(rows: Sequence[ThresholdRow], decisions: HeldOutDecisions) -> list[str]:
    """Sentences on what the table alone does not show.

    Args:
        rows: the student without exits first.
        decisions: that the rows are of.
    """
    return [text for text in (_excess_loss(rows), _better_exit(decisions)) if text]


def _excess_loss(rows: Sequence[ThresholdRow]) -> str:
    """That thresholds lose more on the test images than was allowed, or ""."""
    student, cells = rows[0], []
    for row in rows[1:]:
        if row.max_loss is not None and "test" in row.outcomes:
            loss = student.outcomes["test"].accuracy - row.outcomes["test"].accuracy
            if loss > row.max_loss + 1e-9:
                cells.append(f"{100 * loss:.1f} points where {100 * row.max_loss:g} were allowed")
    if not cells:
        return ""
    return (
        f"on the test images the thresholds lose more than on the validation images: "
        f"{', '.join(cells)}; the validation images are few, or of another kind"
    )


def _better_exit(decisions: HeldOutDecisions) -> str:
    """That one exit for all images is better and cheaper than the student, or ""."""
    accuracy = {s: d.correct.mean(0) for s, d in decisions.splits.items()}
    costs, student = decisions.costs, decisions.costs.trunk[-1]
    better = [
        k
        for k in range(len(decisions.exits))
        if all(values[k] > values[-1] for values in accuracy.values())
        and costs.trunk[k] + costs.heads[k] < student
    ]
    if not better:
        return ""
    choosing = next(iter(accuracy.values()))
    best = max(better, key=lambda k: choosing[k])
    points = ", ".join(
        f"{100 * (values[best] - values[-1]):+.1f} points on {split}"
        for split, values in accuracy.items()
    )
    name, share = decisions.exits[best], (costs.trunk[best] + costs.heads[best]) / student
    return (
        f"{name} for all images is better than the student ({points}) at {share:.0%} of its "
        f"multiply-adds; selfdistill export --exit {name} cuts it out"
    )


def anytime_csv(rows: Sequence[ThresholdRow], exits: Sequence[str], machine: str) -> str:
    """The rows as csv text; shares and costs are of the split named in `images`.

    Args:
        rows: the student without exits first.
        exits: their names.
        machine: that the latencies were measured on.
    """
    header = ["max_loss", *(f"threshold_{name}" for name in exits), "images"]
    header += [f"share_{name}" for name in (*exits, "student")]
    header += ["val_accuracy", "test_accuracy", "macs", "macs_ratio"]
    header += ["latency_ms", "latency_ratio", "machine"]
    return csv_text(header, ([*_cells(row, rows[0]), machine] for row in rows))


def _cells(row: ThresholdRow, student: ThresholdRow) -> list[object]:
    seconds, reference = row.seconds, student.seconds
    return [
        row.max_loss,
        *row.thresholds,
        list(row.outcomes)[-1],
        *row.reported.shares,
        *(row.outcomes[n].accuracy if n in row.outcomes else None for n in ("val", "test")),
        round(row.reported.macs),
        round(row.reported.macs / student.reported.macs, 6),
        round(1000 * seconds, 4) if seconds else None,
        round(seconds / reference, 4) if seconds and reference else None,
    ]
