"""Results of a measurement: losses of the critics at every evaluation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ..functional.information_bounds import CHANCE
from ..records.csv_text import csv_text
from .config import EstimatorConfig

TRAINING, HELD_OUT = "training", "held out"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class CriticLoss:
    """One loss of one critic: mean since the evaluation before, or on held-out images."""

    network: str
    seed: int
    step: int
    term: str
    split: str
    loss: float


@dataclass(frozen=True)
class MeanStd:
    """Mean and standard deviation of a loss over the seeds; that of one seed alone is 0."""

    mean: float
    std: float
    seeds: int


@dataclass(frozen=True)
class LossCurve:
    """A loss over steps: mean and standard deviation over the seeds."""

    steps: Array
    mean: Array
    std: Array


@dataclass(frozen=True)
class InformationResult:
    """Losses of critics; a loss below chance is information.

    Attributes:
        rows: losses of every term at every evaluation.
        taps: of each network, shallowest first.
        chance: loss of a critic that knows nothing.
        held_out: number and kind of the images that the critics were evaluated on.
        config: training of the critics.
    """

    rows: Sequence[CriticLoss]
    taps: Mapping[str, Sequence[str]]
    chance: float
    held_out: str
    config: EstimatorConfig

    @property
    def networks(self) -> list[str]:
        """Names of the networks, in the order in which they were given."""
        return list(self.taps)

    def terms(self, network: str, family: str = "") -> list[str]:
        """`mutual/1`, …, `self/1`, … of a network, or those of one family."""
        terms = dict.fromkeys(row.term for row in self.rows if row.network == network)
        return [term for term in terms if term.startswith(family)]

    def curve(self, network: str, term: str, split: str = HELD_OUT) -> LossCurve:
        """One loss over the steps."""
        key = (network, term, split)
        by_step: dict[int, list[float]] = {}
        for row in (r for r in self.rows if (r.network, r.term, r.split) == key):
            by_step.setdefault(row.step, []).append(row.loss)
        values = np.array(list(by_step.values()))  # (steps, seeds)
        several = values.shape[1] > 1
        std = values.std(1, ddof=1) if several else np.zeros(len(values))
        return LossCurve(np.array(list(by_step), dtype=np.float64), values.mean(1), std)

    def final(self, network: str, term: str) -> MeanStd:
        """Held-out loss after the last step."""
        curve = self.curve(network, term)
        seeds = {row.seed for row in self.rows if row.network == network}
        return MeanStd(float(curve.mean[-1]), float(curve.std[-1]), len(seeds))

    def to_csv(self) -> str:
        """The rows as csv, each with the tap of its module and the loss of chance."""
        header = [*(field.name for field in fields(CriticLoss)), "tap", "chance"]
        return csv_text(header, map(self._cells, self.rows))

    def _cells(self, row: CriticLoss) -> list[object]:
        tap = self.taps[row.network][int(row.term.rpartition("/")[2]) - 1]
        cells = [f"{x:.6f}" if isinstance(x, float) else x for x in astuple(row)]
        return [*cells, tap, f"{self.chance:.6f}"]


def chance_loss(estimator: str, negatives: int) -> float:
    """Lowest loss of a critic that gives every pair the same score.

    The distance of a loss below it is, for "infonce", "dv" and "nwj", a lower bound of the mutual
    information in nats, and for "jsd" twice the Jensen-Shannon divergence between positive and
    negative pairs, at most 2 ln 2.
    """
    return {"jsd": CHANCE, "infonce": math.log(negatives + 1), "dv": 0.0, "nwj": 0.0}[estimator]
