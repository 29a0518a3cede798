"""The table of anytime inference: what thresholds come to on a run's images."""

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
"""The table in a run's directory."""


class HeldOutDecisions(NamedTuple):
    """What the exits of a method make of the held-out images.

    Attributes:
        exits: their names, shallowest first.
        prices: what they cost.
        parts: {"val": ..., "test": ...}, those that there are.
    """

    exits: tuple[str, ...]
    prices: ExitCosts
    parts: dict[str, ExitDecisions]


class ThresholdRow(NamedTuple):
    """One choice of thresholds.

    Attributes:
        max_loss: what they were calibrated to; None if they were given.
        thresholds: one for each exit; where all are None the student works alone.
        outcomes: what they come to on each part of the data.
        seconds: mean time of an image of the last part; None where it was not measured.
    """

    max_loss: float | None
    thresholds: tuple[Threshold, ...]
    outcomes: dict[str, ThresholdOutcome]
    seconds: float | None = None

    @property
    def told(self) -> ThresholdOutcome:
        """On the part that the result is reported on: the test images, if there are any."""
        return list(self.outcomes.values())[-1]


def held_out_decisions(method: Method, data: ImageData, *, workers: int = 0) -> HeldOutDecisions:
    """Ask all exits about the validation and the test images.

    Args:
        method: trained, in evaluation mode.
        data: of its run.
        workers: processes that decode files.

    Raises:
        ConfigError: the method leaves no exits.
        DataError: there are neither validation nor test images.
    """
    exits = tuple(early_exits(method))
    held_out = {"val": data.val, "test": data.test}
    parts = {
        name: collect_exit_decisions(method, data, images, workers=workers)
        for name, images in held_out.items()
        if images is not None
    }
    if not parts:
        raise DataError(f"'{data.name}' has neither validation nor test images to judge by")
    example = torch.zeros(1, *data.train.shape, device=next(method.parameters()).device)
    return HeldOutDecisions(exits, exit_costs(method, example), parts)


def calibrated_row(judged: HeldOutDecisions, max_loss: float) -> ThresholdRow:
    """Thresholds that cost least at a loss of at most `max_loss` on the validation images.

    Raises:
        ConfigError: see `calibrate_thresholds`.
        DataError: there are no validation images.
    """
    if "val" not in judged.parts:
        raise DataError(
            "thresholds are chosen on validation images, and the run held none out; "
            "give them by --threshold"
        )
    return threshold_row(
        judged, calibrate_thresholds(judged.parts["val"], judged.prices, max_loss), max_loss
    )


def threshold_row(
    judged: HeldOutDecisions, thresholds: tuple[Threshold, ...], max_loss: float | None = None
) -> ThresholdRow:
    """What thresholds come to; all None is the student alone."""
    outcomes = {
        name: threshold_outcome(watched, judged.prices, thresholds)
        for name, watched in judged.parts.items()
    }
    return ThresholdRow(max_loss, thresholds, outcomes)


def with_latencies(
    rows: Sequence[ThresholdRow], method: Method, data: ImageData, *, seconds: float
) -> list[ThresholdRow]:
    """The rows with the mean time of an image by itself, on the method's device.

    Each way out is timed, in turns with all others, and weighted with the share of the images that
    takes it.

    Args:
        rows: of this method.
        method: trained.
        data: say how large an image is.
        seconds: for measuring.
    """
    took = time_exits(
        [build_early_exit_network(method, row.thresholds) for row in rows],
        extract_predictor(method, "student"),  # whose taps would cost it time
        torch.zeros(1, *data.train.shape),
        device=next(method.parameters()).device,
        seconds=seconds,
    )
    done = []
    for row, leaving in zip(rows, took.leaving, strict=True):
        cells = zip([*row.thresholds, 1.0], row.told.shares, strict=True)
        shares = [share for t, share in cells if t is not None]
        mean = sum(share * time for share, time in zip(shares, leaving, strict=True))
        alone = len(shares) == 1  # without an exit it is the student
        done.append(row._replace(seconds=took.student if alone else mean))
    return done


def anytime_csv(rows: Sequence[ThresholdRow], exits: Sequence[str], where: str) -> str:
    """The rows as csv text; shares and costs are of the part named in `images`.

    Args:
        rows: the student alone first.
        exits: their names.
        where: what the times were measured on.
    """
    header = ["max_loss", *(f"threshold_{name}" for name in exits), "images"]
    header += [f"share_{name}" for name in (*exits, "student")]
    header += ["val_accuracy", "test_accuracy", "macs", "macs_ratio"]
    header += ["latency_ms", "latency_ratio", "machine"]
    return csv_text(header, ([*_cells(row, rows[0]), where] for row in rows))


def _cells(row: ThresholdRow, student: ThresholdRow) -> list[object]:
    took, alone = row.seconds, student.seconds
    return [
        row.max_loss,
        *row.thresholds,
        list(row.outcomes)[-1],
        *row.told.shares,
        *(row.outcomes[n].accuracy if n in row.outcomes else None for n in ("val", "test")),
        round(row.told.macs),
        round(row.told.macs / student.told.macs, 6),
        round(1000 * took, 4) if took else None,
        round(took / alone, 4) if took and alone else None,
    ]
