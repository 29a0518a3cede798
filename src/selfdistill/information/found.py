"""What was measured: a row for every look, and the numbers that are shown of them."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..functional.information_bounds import CHANCE
from .plan import Plan

TRAINING, HELD_OUT = "training", "held out"
Array = NDArray[np.float64]


class Row(NamedTuple):
    """One loss of one critic: over the steps since the look before, or on held-out images."""

    network: str
    seed: int
    step: int
    term: str
    split: str
    loss: float


class Amount(NamedTuple):
    """A loss over the seeds; the deviation of one seed alone is 0."""

    mean: float
    std: float
    seeds: int


class Track(NamedTuple):
    """A loss over steps: mean and deviation over the seeds."""

    steps: Array
    mean: Array
    std: Array


@dataclass(frozen=True)
class Information:
    """Losses of critics, whose fall below chance is information.

    Attributes:
        rows: every look at every term.
        taps: of each network, shallowest first.
        chance: the loss of a critic that knows nothing.
        held_out: how many images of what kind the critics were judged by.
        plan: how the critics were trained.
    """

    rows: Sequence[Row]
    taps: Mapping[str, Sequence[str]]
    chance: float
    held_out: str
    plan: Plan

    @property
    def networks(self) -> list[str]:
        """Their names, in the order in which they were given."""
        return list(self.taps)

    def terms(self, network: str, family: str = "") -> list[str]:
        """`mutual/1`, …, `self/1`, … of a network, or those of one family."""
        found = dict.fromkeys(row.term for row in self.rows if row.network == network)
        return [term for term in found if term.startswith(family)]

    def track(self, network: str, term: str, split: str = HELD_OUT) -> Track:
        """A loss over the steps."""
        wanted = (network, term, split)
        rows = [row for row in self.rows if (row.network, row.term, row.split) == wanted]
        by_step: dict[int, list[float]] = {}
        for row in rows:
            by_step.setdefault(row.step, []).append(row.loss)
        values = np.array(list(by_step.values()))  # (steps, seeds)
        several = values.shape[1] > 1
        std = values.std(1, ddof=1) if several else np.zeros(len(values))
        return Track(np.array(list(by_step), dtype=np.float64), values.mean(1), std)

    def final(self, network: str, term: str) -> Amount:
        """The held-out loss after the last step."""
        track = self.track(network, term)
        seeds = {row.seed for row in self.rows if row.network == network}
        return Amount(float(track.mean[-1]), float(track.std[-1]), len(seeds))

    def to_csv(self) -> str:
        """The rows, with the tap of each module and the chance beside them."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*Row._fields, "tap", "chance"])
        for row in self.rows:
            tap = self.taps[row.network][int(row.term.rpartition("/")[2]) - 1]
            writer.writerow([*row[:-1], f"{row.loss:.6f}", tap, f"{self.chance:.6f}"])
        return text.getvalue()


def chance_of(estimator: str, negatives: int) -> float:
    """The loss that a critic gets which gives every pair the same score, at best.

    What the loss lies below it is, for "infonce", "dv" and "nwj", a lower bound of the mutual
    information in nats, and for "jsd" twice the Jensen-Shannon divergence between pairs that
    belong together and pairs that do not, at most 2 ln 2.
    """
    return {"jsd": CHANCE, "infonce": math.log(negatives + 1), "dv": 0.0, "nwj": 0.0}[estimator]
