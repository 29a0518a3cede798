"""What was measured of a run's exits, as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..costs.macs import NetworkCost
from ..functional.statistics import PairedDifference
from .csv_text import csv_text

BASELINE = "baseline"
"""The row of the run without distillation."""
FILE = "exits-measured.csv"
SPLITS = ("val", "test")


@dataclass(frozen=True)
class ExitMeasurement:
    """One predictor; what could not be measured is None or missing.

    Attributes:
        predictor: its name, or "baseline".
        cost: parameters and multiply-adds.
        size: bytes of its safetensors file.
        seconds: median of a forward pass, by (device, batch).
        scores, ece: by split, fractions; the expected calibration error has 15 bins.
        against: the difference from the baseline, by split.
        front: whether no other exit is as cheap and as good, and better in one of the two.
    """

    predictor: str
    cost: NetworkCost
    size: int | None
    seconds: Mapping[tuple[str, int], float]
    scores: Mapping[str, float]
    ece: Mapping[str, float]
    against: Mapping[str, PairedDifference] = field(default_factory=dict)
    front: bool = False


@dataclass(frozen=True)
class ExitMeasurements:
    """All exits of a run.

    Attributes:
        rows: the run's predictors, shallowest first.
        baseline: the run without distillation, if there is one.
        passes: (device, batch) of the latencies.
        about: what the figures hold for: cost, threads, machine, torch, epoch, baseline, notes.
        notes: sentences on what could not be had.
        metric: what the scores are, the task's primary_metric.
    """

    rows: Sequence[ExitMeasurement]
    baseline: ExitMeasurement | None
    passes: Sequence[tuple[str, int]]
    about: Mapping[str, Any]
    notes: Sequence[str]
    metric: str

    @property
    def splits(self) -> list[str]:
        """The parts of the data that there were to judge by."""
        return [split for split in SPLITS if all(split in row.scores for row in self.rows)]


def measured_csv(measured: ExitMeasurements) -> str:
    """One row a predictor and one for the baseline; latencies are in milliseconds."""
    header = ["predictor", "front", "parameters", "macs", "bytes"]
    header += [f"{device}_ms_{batch}" for device, batch in measured.passes]
    kinds = (measured.metric, "ece", "difference", "low", "high")
    for split in SPLITS:
        header += [f"{split}_{kind}" for kind in kinds]
    header += measured.about
    rows = [*measured.rows, *([measured.baseline] if measured.baseline else [])]
    return csv_text(header, (_cells(row, measured) for row in rows))


def _cells(row: ExitMeasurement, measured: ExitMeasurements) -> list[Any]:
    cells: list[Any] = [row.predictor, int(row.front), *row.cost, row.size]
    for which in measured.passes:
        seconds = row.seconds.get(which)
        cells.append(None if seconds is None else round(1000 * seconds, 4))
    for split in SPLITS:
        paired = row.against.get(split)
        difference = [paired.mean, *paired.interval] if paired else [None] * 3
        cells += [row.scores.get(split), row.ece.get(split), *difference]
    return cells + list(measured.about.values())
