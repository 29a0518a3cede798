"""`exits-measured.csv`: score, cost, latency and size of a run's exits beside a baseline."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..costs.macs import NetworkCost
from ..functional.statistics import Interval, PairedDifference, Significance
from . import BASELINE, SPLITS
from .csv_text import csv_rows, csv_text, number, read_record

FILE = "exits-measured.csv"
_COLUMNS = ["predictor", "front", "parameters", "macs", "bytes"]
_KINDS = ("ece", "difference", "low", "high")
_ABOUT = {"cost": str, "epoch": int, "threads": int, "machine": str, "torch": str, "baseline": str}
_BETWEEN_NOTES = "; "


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
        front: whether it is on the Pareto front of score and multiply-adds.
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
        about: conditions of the measurement: cost, epoch, threads, machine, torch, baseline.
        notes: sentences on what could not be measured.
        metric: what the scores are, the task's primary_metric.
    """

    rows: Sequence[ExitMeasurement]
    baseline: ExitMeasurement | None
    passes: Sequence[tuple[str, int]]
    about: Mapping[str, Any]
    notes: Sequence[str]
    metric: str

    @property
    def all_rows(self) -> list[ExitMeasurement]:
        """The run's predictors and the baseline."""
        return [*self.rows, *([self.baseline] if self.baseline else [])]

    @property
    def splits(self) -> list[str]:
        """The splits on which every predictor of the run was evaluated."""
        return [split for split in SPLITS if all(split in row.scores for row in self.rows)]

    @property
    def choosing_split(self) -> str:
        """The split to choose exits by: validation, if all rows were evaluated on it, else test."""
        evaluated = all(SPLITS[0] in row.scores for row in self.all_rows)
        return SPLITS[0] if evaluated else SPLITS[1]

    def to_csv(self) -> str:
        """One row for each predictor and one for the baseline; latencies are in milliseconds."""
        header = [*_COLUMNS, *(f"{device}_ms_{batch}" for device, batch in self.passes)]
        header += [f"{s}_{kind}" for s in SPLITS for kind in (self.metric, *_KINDS)]
        about = [*(self.about[key] for key in _ABOUT), _BETWEEN_NOTES.join(self.notes)]
        rows = [[*_cells(row, self.passes), *about] for row in self.all_rows]
        return csv_text([*header, *_ABOUT, "notes"], rows)


def _cells(row: ExitMeasurement, passes: Sequence[tuple[str, int]]) -> list[Any]:
    cells: list[Any] = [row.predictor, int(row.front), *row.cost, row.size]
    for key in passes:
        seconds = row.seconds.get(key)
        cells.append(None if seconds is None else round(1000 * seconds, 4))
    for split in SPLITS:
        paired = row.against.get(split)
        difference = [paired.mean, *paired.interval] if paired else [None] * 3
        cells += [row.scores.get(split), row.ece.get(split), *difference]
    return cells


def from_csv(text: str) -> ExitMeasurements:
    """The measurements that `ExitMeasurements.to_csv` wrote.

    Raises:
        ValueError, LookupError: it wrote something else.
    """
    header, rows = csv_rows(text)
    passes = [
        (match[1], int(match[2]))
        for name in header
        if (match := re.fullmatch(r"(\w+)_ms_(\d+)", name))
    ]
    metric = header[len(_COLUMNS) + len(passes)].removeprefix(f"{SPLITS[0]}_")
    tables = [dict(zip(header, row, strict=True)) for row in rows]
    measured = [_measurement(cells, passes, metric) for cells in tables]
    about = {key: kind(tables[0][key]) for key, kind in _ABOUT.items()}
    notes = tables[0]["notes"]
    return ExitMeasurements(
        [row for row in measured if row.predictor != BASELINE],
        next((row for row in measured if row.predictor == BASELINE), None),
        passes,
        about,
        notes.split(_BETWEEN_NOTES) if notes else [],
        metric,
    )


def _measurement(
    cells: Mapping[str, str], passes: Sequence[tuple[str, int]], metric: str
) -> ExitMeasurement:
    times = {(d, batch): number(cells[f"{d}_ms_{batch}"]) for d, batch in passes}
    scores = {split: number(cells[f"{split}_{metric}"]) for split in SPLITS}
    ece = {split: number(cells[f"{split}_ece"]) for split in SPLITS}
    return ExitMeasurement(
        cells["predictor"],
        NetworkCost(int(cells["parameters"]), int(cells["macs"])),
        int(cells["bytes"]) if cells["bytes"] else None,
        {key: time / 1000 for key, time in times.items() if time is not None},
        {split: score for split, score in scores.items() if score is not None},
        {split: error for split, error in ece.items() if error is not None},
        {s: _paired(cells, s) for s in SPLITS if cells[f"{s}_difference"]},
        cells["front"] == "1",
    )


def _paired(cells: Mapping[str, str], split: str) -> PairedDifference:
    mean, low, high = (float(cells[f"{split}_{kind}"]) for kind in _KINDS[1:])
    interval = Interval(low, high)
    verdict = Significance.INCONCLUSIVE if interval.contains(0) else Significance.SIGNIFICANT
    return PairedDifference(mean, interval, verdict)


def read_exit_measurements(run_dir: Path) -> ExitMeasurements | None:
    """What `selfdistill exits` measured of a run, None before it did.

    Raises:
        ArtifactError: the table cannot be read.
    """
    return read_record(run_dir / FILE, from_csv, "table of measured exits")
