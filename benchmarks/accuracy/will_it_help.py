"""How well short paired runs predict the difference of finished ones: `doctor --will-it-help`.

    python benchmarks/accuracy/will_it_help.py

For each study that has them, NAME-short-paired.csv in results/ holds the differences to plain
training of a quarter of the epochs with three seeds, on validation images, made by the study's own
script with `--epochs`, or `--short` where it has that; NAME-paired.csv holds those at full length,
on test images. The result is a line for each row of both: the interval that is predicted where the
widening comes from all *other* rows with first weights of the same kind, and what became of the
verdict. The widenings from all rows are written to src/selfdistill/comparison/prediction.toml.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record, recorded

from selfdistill.comparison import prediction
from selfdistill.comparison.prediction import Verdict
from selfdistill.functional.statistics import Interval, MeanDifference, Significance

BASELINE = "ce"
NAME = "will-it-help-calibration"
STUDIES = {
    "self": "accuracy-cifar100-small",
    "offline": "accuracy-cifar100-offline",
    "pool": "accuracy-cifar100-pool",
    "strong": "accuracy-strong",
    "joined": "accuracy-joined-screen",
    "clothes": "accuracy-fine-tuning-methods",
    "frames": "accuracy-fine-tuning-methods-frames",
}
FINE_TUNED = ("clothes", "frames")


@dataclass(frozen=True)
class Pair:
    """A row's differences to plain training after short and after full runs, as fractions."""

    study: str
    row: str
    short: MeanDifference
    full: MeanDifference

    @property
    def weights(self) -> str:
        """The kind of the first weights."""
        return "initial" if self.study in FINE_TUNED else "random"

    @property
    def distance(self) -> float:
        """How far the full difference lies outside of the short runs' interval."""
        assert self.short.t
        return prediction.distance_outside(self.short.t, self.full.mean)


def differences(name: str, split: str) -> dict[str, MeanDifference]:
    """{row: its difference to plain training}, of a result file of pairs."""
    found = {}
    for line in recorded(f"{name}-paired"):
        row, _, base = line["difference"].partition(" - ")
        if base == BASELINE and line["split"] == split:
            mean, low, high = (float(line[key]) / 100 for key in ("mean", "low", "high"))
            beyond = line["verdict"] == "beyond noise"
            significance = Significance.SIGNIFICANT if beyond else Significance.INCONCLUSIVE
            found[row] = MeanDifference(
                int(line["n"]), mean, Interval(low, high), None, significance
            )
    return found


def pairs() -> list[Pair]:
    """Every row of every study that has both."""
    found = []
    for study, name in STUDIES.items():
        short = differences(f"{name}-short", "val")
        full = differences(name, "test") or differences(name, "val")
        found += [Pair(study, row, short[row], full[row]) for row in short if row in full]
    return found


def judged(found: list[Pair]) -> list[dict[str, Any]]:
    """A line for each pair, predicted with what all others say."""
    lines = []
    for pair in found:
        others = [
            other.distance for other in found if other is not pair and other.weights == pair.weights
        ]
        predicted = prediction.predict(pair.row, pair.short, prediction.widening(others))
        assert predicted.interval
        assert pair.short.t
        assert pair.full.t
        lines.append(
            {
                "study": pair.study,
                "weights": pair.weights,
                "row": pair.row,
                **points("short", pair.short.mean, pair.short.t),
                "short_n": pair.short.n,
                **points("full", pair.full.mean, pair.full.t),
                "full_n": pair.full.n,
                "full_verdict": str(pair.full.significance),
                "outside": round(100 * pair.distance, 2),
                "predicted_low": round(100 * predicted.interval.low, 2),
                "predicted_high": round(100 * predicted.interval.high, 2),
                "covered": predicted.interval.contains(pair.full.mean),
                "verdict": str(predicted.verdict),
                "judgment": judgment(predicted.verdict, pair.full),
            }
        )
    return lines


def points(name: str, mean: float, interval: Interval) -> dict[str, float]:
    ends = {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {key: round(100 * value, 2) for key, value in {name: mean, **ends}.items()}


def judgment(verdict: Verdict, full: MeanDifference) -> str:
    """A verdict is right if the full difference is beyond noise on the side that it names."""
    if verdict is Verdict.CANNOT_TELL:
        return str(verdict)
    side = full.mean > 0 if verdict is Verdict.HELPS else full.mean < 0
    return "right" if side and full.significance is Significance.SIGNIFICANT else "wrong"


def write_constants(found: list[Pair]) -> None:
    """The widening from all pairs of a kind, and their number, in prediction.toml."""
    before = prediction.calibration()
    head = [line for line in prediction.FILE.read_text().splitlines() if line.startswith("#")]
    lines = [f"fraction = {before.fraction}", f"seeds = {before.seeds}"]
    for weights in ("random", "initial"):
        distances = [pair.distance for pair in found if pair.weights == weights]
        constant = 100 * prediction.widening(distances)
        lines += ["", f"[{weights}]", f"widening = {constant:.2f}", f"pairs = {len(distances)}"]
    prediction.FILE.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")


def main() -> None:
    found = pairs()
    lines = judged(found)
    for line in lines:
        print(*line.values(), sep="\t")
    print(record(NAME, lines))
    write_constants(found)


if __name__ == "__main__":
    main()
