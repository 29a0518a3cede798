"""Whether a method will help, predicted from short paired runs.

The short runs' mean difference to plain training is the estimate. Its t interval is widened at both
ends by a constant from finished pairs of runs: how far the difference at full length lay outside of
the short runs' interval, at the rank that split conformal prediction takes (Romano, Patterson and
Candès 2019, https://arxiv.org/abs/1905.03222, whose quantile regression is a t interval here).
There is one constant for training from random weights and one for fine-tuning, where differences
are several times as large. They, and how the short runs of these pairs were made, stand in
`prediction.toml`, from `benchmarks/accuracy/will_it_help.py`.
"""

import math
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..core import STUDENT, ConfigError, DataError
from ..functional.statistics import MIN_PAIRS, Interval, MeanDifference
from .compare import Comparison, ComparisonCallback, compare, requested_study
from .results import RunOutcome

FILE = Path(__file__).with_name("prediction.toml")
COVERAGE = 0.9
"""Probability that intervals are widened for, where there are pairs enough."""
FULL_SEEDS = 5
"""Seeds of the comparison that is advised where the prediction is not enough."""
NO_VALIDATION = (
    "short runs are judged by validation images, and there are none; give --val-fraction 0.1"
)


class Verdict(StrEnum):
    """What a prediction says; the value is the text for people."""

    HELPS = "helps"
    DOES_NOT_HELP = "does not help"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Calibration:
    """How the short runs of the finished pairs were made, and what came of those of one kind.

    Attributes:
        fraction: of the epochs that a short run trains.
        seeds: number of seeds.
        widening: what is added to both ends of the interval, in points.
        pairs: number of methods whose short and long differences were compared.
    """

    fraction: float
    seeds: int
    widening: float
    pairs: int

    @property
    def coverage(self) -> float:
        """Probability that the interval holds the next difference of the kind of the pairs'."""
        return min(COVERAGE, self.pairs / (self.pairs + 1))


@cache
def calibration(weights: str = "random") -> Calibration:
    """The record in prediction.toml of pairs whose first weights are "random" or "initial"."""
    record = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return Calibration(record["fraction"], record["seeds"], **record[weights])


@dataclass(frozen=True)
class Prediction:
    """A row's difference to plain training at full length, as fractions.

    Attributes:
        row: its name.
        short: the short runs' difference.
        interval: of the difference at full length; None with fewer than three pairs.
    """

    row: str
    short: MeanDifference
    interval: Interval | None

    @property
    def verdict(self) -> Verdict:
        """Whether the interval lies on one side of zero."""
        if self.interval is None or self.interval.contains(0):
            return Verdict.CANNOT_TELL
        return Verdict.HELPS if self.interval.low > 0 else Verdict.DOES_NOT_HELP


def predict(row: str, short: MeanDifference, widening: float) -> Prediction:
    """Prediction from the difference of short runs.

    Args:
        widening: what is added to both ends of their t interval, a fraction.
    """
    if short.t is None or short.n < MIN_PAIRS:
        return Prediction(row, short, None)
    return Prediction(row, short, Interval(short.t.low - widening, short.t.high + widening))


def distance_outside(interval: Interval, value: float) -> float:
    """How far a value lies outside of an interval, 0 within."""
    return max(interval.low - value, value - interval.high, 0.0)


def widening(distances: Sequence[float], coverage: float = COVERAGE) -> float:
    """The smallest widening that holds the next of exchangeable values with this probability.

    It is the ⌈(n + 1)·coverage⌉-th smallest of n distances. Where n is too small for that, it is
    the largest, which holds the next one with a probability of n / (n + 1).
    """
    rank = min(len(distances), math.ceil((len(distances) + 1) * coverage))
    return sorted(distances)[rank - 1]


def short_keys(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What differs in the recipe of a short run: epochs and what is counted in them, no tracker."""
    epochs = recipe["epochs"]
    short = math.ceil(calibration().fraction * epochs)
    scale = short / epochs
    return {
        "epochs": short,
        "warmup_epochs": recipe["warmup_epochs"] * scale,
        # an epoch at the first rate is left, and as many steps down lead to the last one
        "milestones": [max(1, int(epoch * scale)) for epoch in recipe["milestones"]],
        "val_every_epochs": short,
        "track": "off",
    }


@dataclass(frozen=True)
class ShortRuns:
    """Short runs that are to be made, checked.

    Attributes:
        methods: rows, as for `compare`.
        seeds: of the runs.
        recipe: TOML file to start from.
        keys: as for `compare`, without what is shorter.
        shorter: keys of the short runs.
        baseline: name of the row that the others are compared with.
        epochs: of a run at full length.
        calibration: of pairs with first weights of the same kind.
    """

    methods: Sequence[str]
    seeds: tuple[int, ...]
    recipe: str | Path | None
    keys: dict[str, Any]
    shorter: dict[str, Any]
    baseline: str
    epochs: int
    calibration: Calibration


@dataclass(frozen=True)
class Forecast:
    """Predictions from short runs, and what they cost.

    Attributes:
        predictions: one for each row that has a seed in common with the baseline.
        failed: runs that failed.
        seconds: what the short runs took.
        full_seconds: what a comparison at full length would take, an estimate.
    """

    predictions: list[Prediction]
    failed: list[RunOutcome]
    seconds: float
    full_seconds: float


def plan_short_runs(
    methods: Sequence[str], *, recipe: str | Path | None = None, seed: int = 0, **keys: Any
) -> ShortRuns:
    """Check what `forecast` is to run; nothing is trained.

    Args:
        methods: rows, each METHOD, METHOD:key=value,… or NAME=METHOD:….
        recipe: TOML file to start from.
        seed: the first of the seeds.
        keys: as for `compare`.

    Raises:
        ConfigError: as for `compare`, or no row is a method, or the run is too short to shorten.
    """
    seeds = tuple(range(seed, seed + calibration().seeds))
    study = requested_study(methods, seeds, recipe, keys)
    if len(study.rows) == 1:
        raise ConfigError(
            "plain training is what others are compared with; name methods: --will-it-help "
            "muse,frskd"
        )
    full = study.rows[study.baseline]
    shorter = short_keys(full.model_dump())
    if shorter["epochs"] >= full.epochs or full.epochs * calibration().fraction < 1:
        least = math.ceil(1 / calibration().fraction)
        raise ConfigError(
            f"a short run is a part of a run, and {full.epochs} epochs have no such part; give "
            f"--epochs {least} or more"
        )
    record = calibration("initial" if full.weights else "random")
    return ShortRuns(
        methods, seeds, recipe, dict(keys), shorter, study.baseline, full.epochs, record
    )


def forecast(
    runs: ShortRuns,
    callback: ComparisonCallback | None = None,
    *,
    jobs: int | None = None,
    threads: int | None = None,
) -> Forecast:
    """Train the short runs by a comparison that is thrown away, and predict from them.

    Args:
        callback, jobs, threads: as for `compare`.

    Raises:
        DataError: there are no validation images.
    """
    start = time.monotonic()
    with TemporaryDirectory(prefix="selfdistill-") as folder:
        comparison = compare(
            runs.methods,
            seeds=runs.seeds,
            recipe=runs.recipe,
            out=Path(folder) / "study",
            callback=callback,
            jobs=jobs,
            threads=threads,
            **{**runs.keys, **runs.shorter},
        )
        predictions = _predictions(comparison, runs.calibration.widening / 100)
    seconds = time.monotonic() - start
    longer = runs.epochs / runs.shorter["epochs"] * FULL_SEEDS / len(runs.seeds)
    return Forecast(predictions, comparison.failed, seconds, seconds * longer)


def _predictions(comparison: Comparison, widening: float) -> list[Prediction]:
    """Of every row's student, by validation images: test images are not for choices."""
    results = [r for r in comparison.results if r.predictor == STUDENT]
    of_val = [r for r in results if r.split == "val"]
    if results and not of_val:
        raise DataError(NO_VALIDATION)
    return [predict(r.row, r.difference, widening) for r in of_val if r.difference]
