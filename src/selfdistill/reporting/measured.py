"""What `selfdistill exits` measured of a run, read from its table."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..core import ArtifactError

BASELINE = "baseline"  # the row of the run without distillation
_ABOUT = ("cost", "machine", "torch", "baseline", "notes")
_SPLITS = {"test": "test", "validation": "val"}  # as the page and as the table call them


class Against(NamedTuple):
    """A difference from the baseline's score and its interval, as fractions."""

    mean: float
    low: float
    high: float


class MeasuredRow(NamedTuple):
    """A predictor; `scores` and `against` by split, `times` in ms by (device, images)."""

    name: str
    front: bool
    macs: int
    size: int | None
    times: dict[tuple[str, int], float]
    scores: dict[str, float]
    against: dict[str, Against]


class MeasuredTable(NamedTuple):
    """All rows, the baseline's last if there is one, and what the figures hold for."""

    rows: list[MeasuredRow]
    about: dict[str, str]

    @property
    def passes(self) -> list[tuple[str, int]]:
        """(device, images) of the times, in order."""
        return list(dict.fromkeys(which for row in self.rows for which in row.times))

    @property
    def split(self) -> str:
        """The images to choose exits by."""
        known = all("validation" in row.scores for row in self.rows)
        return "validation" if known else "test"


def read_measured(path: Path, metric: str) -> MeasuredTable | None:
    """The table, or None if there is none.

    Args:
        path: the file.
        metric: what the scores are, by its name in the table.

    Raises:
        ArtifactError: it cannot be read.
    """
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="") as stream:
        try:
            cells = list(csv.DictReader(stream))
            rows = [_row(row, metric) for row in cells]
            about = {key: cells[0][key] for key in _ABOUT}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path} is no table of measured exits ({error})") from None
    return MeasuredTable(rows, about)


def _row(cells: Mapping[str, str], metric: str) -> MeasuredRow:
    times, scores, against = {}, {}, {}
    for name, text in cells.items():
        if text and (found := re.fullmatch(r"(\w+)_ms_(\d+)", name)):
            times[found[1], int(found[2])] = float(text)
    for split, key in _SPLITS.items():
        if cells[f"{key}_{metric}"]:
            scores[split] = float(cells[f"{key}_{metric}"])
        if cells[f"{key}_difference"]:
            ends = (float(cells[f"{key}_{end}"]) for end in ("difference", "low", "high"))
            against[split] = Against(*ends)
    return MeasuredRow(
        cells["predictor"],
        cells["front"] == "1",
        int(cells["macs"]),
        int(cells["bytes"]) if cells["bytes"] else None,
        times,
        scores,
        against,
    )
