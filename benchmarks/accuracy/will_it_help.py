"""How well short paired runs predict the difference of finished ones: `doctor --will-it-help`.

    python benchmarks/accuracy/will_it_help.py --studies runs/pool runs/offline16 runs/forms

A study is a folder of ROW/sSEED, finished runs of one recipe, one of whose rows is `ce`. Its rows
are trained anew by their own recipes with the first seeds, shortened as `doctor --will-it-help`
shortens them, schedule of the learning rate included; a short run that is there is not made again,
and `--done` makes none. The short runs are judged by validation images, the finished ones by test
images. The result is a line for each row with all its short runs: both differences, the interval
that is predicted where the widening comes from all *other* rows, and what became of the verdict.
The widening from all rows is written to src/selfdistill/comparison/prediction.toml.
"""

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record
from seeds import trained

import selfdistill.methods  # noqa: F401  registers them
from selfdistill.comparison import prediction
from selfdistill.comparison.prediction import Verdict
from selfdistill.core import STUDENT
from selfdistill.engine.run_directory import RunDirectory
from selfdistill.functional.statistics import (
    Interval,
    MeanDifference,
    Significance,
    mean_difference,
)
from selfdistill.records.exit_scores import read_exit_scores

BASELINE = "ce"
NAME = "will-it-help-calibration"
Pair = dict[str, Any]


def short_recipe(finished: Path, data: str | None) -> dict[str, Any]:
    """Arguments of `train` for the short run that belongs to a finished one."""
    recipe = tomllib.loads((finished / "recipe.toml").read_text(encoding="utf-8"))
    options = recipe.pop("options")
    return {**recipe, **options, **prediction.short_keys(recipe), "data": data or recipe["data"]}


def train_short_runs(study: Path, rows: list[str], args: argparse.Namespace) -> None:
    """The short runs of a study's rows, seed by seed."""
    for row in dict.fromkeys([BASELINE, *rows]):
        for seed in range(prediction.calibration().seeds):
            finished = study / row / f"s{seed}"
            if (finished / "exits.csv").exists():
                out = args.short / study.name / row / f"s{seed}"
                trained(out, **short_recipe(finished, args.data))


def scores(row: Path, split: str) -> dict[int, float]:
    """{seed: score of the student} of a row's finished runs."""
    found = {}
    for run in sorted(row.glob("s[0-9]*")):
        exits = {exit_.predictor: exit_.score(split) for exit_ in read_exit_scores(run)}
        if (score := exits.get(STUDENT)) is not None:
            found[int(run.name[1:])] = score
    return found


def difference(folder: Path, row: str, split: str) -> MeanDifference | None:
    """A row minus the baseline, paired by seed; None with fewer seeds than a short run has."""
    own, base = scores(folder / row, split), scores(folder / BASELINE, split)
    seeds = sorted(own.keys() & base.keys())
    if len(seeds) < prediction.calibration().seeds:
        return None
    return mean_difference([own[s] for s in seeds], [base[s] for s in seeds])


def pairs(studies: list[Path], short: Path) -> list[Pair]:
    """Both differences of each row that has them."""
    found = []
    for study in studies:
        for row in sorted(path.name for path in (short / study.name).iterdir()):
            before = difference(short / study.name, row, "val")
            after = difference(study, row, "test")
            if row == BASELINE or not (before and before.t and after and after.t):
                continue
            distance = prediction.distance_outside(before.t, after.mean)
            lengths = (epochs(study / row), epochs(short / study.name / row))
            found.append(
                {
                    "study": study.name,
                    "row": row,
                    "lengths": lengths,
                    "short": before,
                    "long": after,
                    "distance": distance,
                }
            )
    return found


def epochs(row: Path) -> int:
    recipe = tomllib.loads((next(row.glob("s[0-9]*")) / "recipe.toml").read_text(encoding="utf-8"))
    return int(recipe["epochs"])


def judged(found: list[Pair]) -> list[dict[str, Any]]:
    """A line for each pair, predicted with what all others say."""
    lines = []
    for pair in found:
        others = [other["distance"] for other in found if other is not pair]
        predicted = prediction.predict(pair["row"], pair["short"], prediction.widening(others))
        after = pair["long"]
        assert predicted.interval  # of as many seeds as all rows have
        lines.append(
            {
                "study": pair["study"],
                "row": pair["row"],
                "epochs": pair["lengths"][0],
                "short_epochs": pair["lengths"][1],
                **points("short", pair["short"].mean, pair["short"].t),
                "short_n": pair["short"].n,
                **points("long", after.mean, after.t),
                "long_n": after.n,
                "long_verdict": str(after.significance),
                "outside": round(100 * pair["distance"], 3),
                **points("predicted", pair["short"].mean, predicted.interval),
                "covered": predicted.interval.contains(after.mean),
                "verdict": str(predicted.verdict),
                "judgment": judgment(predicted.verdict, after),
            }
        )
    return lines


def points(name: str, mean: float, interval: Interval) -> dict[str, float]:
    ends = {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {key: round(100 * value, 2) for key, value in {name: mean, **ends}.items()}


def judgment(verdict: Verdict, after: MeanDifference) -> str:
    """A verdict is right if the finished difference is beyond noise on the side that it names."""
    if verdict is Verdict.CANNOT_TELL:
        return str(verdict)
    side = after.mean > 0 if verdict is Verdict.HELPS else after.mean < 0
    return "right" if side and after.significance is Significance.SIGNIFICANT else "wrong"


def write_constant(found: list[Pair]) -> None:
    """The widening from all pairs, and their number, in prediction.toml."""
    before = prediction.calibration()
    constant = prediction.widening([pair["distance"] for pair in found])
    head = [line for line in prediction.FILE.read_text().splitlines() if line.startswith("#")]
    lines = [
        f"fraction = {before.fraction}",
        f"seeds = {before.seeds}",
        f"widening = {100 * constant:.2f}",
        f"pairs = {len(found)}",
    ]
    prediction.FILE.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", nargs="+", type=Path, required=True)
    parser.add_argument("--short", type=Path, default=Path("runs/short"))
    parser.add_argument("--rows", nargs="+", help="some of the studies' rows")
    parser.add_argument("--data", help="where the data of the finished runs lie here")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--done", action="store_true", help="train nothing, tabulate what is there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for study in [] if args.done else args.studies:
        rows = args.rows or sorted(path.parent.name for path in study.glob("*/s0"))
        train_short_runs(study, rows, args)
    found = pairs([s for s in args.studies if (args.short / s.name).exists()], args.short)
    if len(found) > 1:
        lines = judged(found)
        for line in lines:
            print(*line.values(), sep="\t")
        made = args.short / args.studies[0].name / BASELINE / "s0"
        commit = RunDirectory(made).environment()["commit"][:7]
        print(record(NAME, lines, elsewhere={"commit": commit}))
        write_constant(found)


if __name__ == "__main__":
    main()
