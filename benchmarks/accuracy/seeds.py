"""Rows × seeds: train what is not there, and tabulate what is.

A study need not be made in one go, nor on one machine: the seeds that its csv file holds already
can be kept (`--extend`) and those of other runs put beside them.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import recorded, report

import selfdistill
from selfdistill.records.exit_scores import ExitScore, read_exit_scores

EXTEND = "keep the rows and seeds that the csv holds, beside these"
Found = dict[tuple[str, int], list[ExitScore]]


def trained(out: Path, **keys: Any) -> list[ExitScore]:
    """The exits of a run, which is read, resumed or made."""
    if not (out / "exits.csv").exists():
        print(f"{out} …", flush=True)
        selfdistill.train(out=out, resume=(out / "recipe.toml").exists(), **keys)
    return read_exit_scores(out)


def extended(name: str, found: Found) -> Found:
    """What results/NAME.csv holds, and what was found; of one row and seed the latter."""
    scores: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    for line in recorded(name):
        for seed, value in zip(line["seeds"].split(), line["values"].split(), strict=True):
            exits = scores.setdefault((line["row"], int(seed)), {})
            exits.setdefault(line["exit"], {})[line["split"]] = float(value) / 100
    earlier = {
        key: [ExitScore(name, 0, 0, of.get("val"), of.get("test")) for name, of in exits.items()]
        for key, exits in scores.items()
    }
    whole = earlier | found
    rows = dict.fromkeys(row for row, _ in whole)
    order = {row: place for place, row in enumerate(rows)}
    return {key: whole[key] for key in sorted(whole, key=lambda key: (order[key[0]], key[1]))}


def summary(found: Found, rows: list[str]) -> list[dict[str, Any]]:
    """Mean ± standard deviation in percent, a line for each row, exit and split."""
    lines = []
    for row in rows:
        seeds = [seed for name, seed in found if name == row]
        runs = [found[row, seed] for seed in seeds]
        for place, exit_ in enumerate(runs[0]):
            for split in ("val", "test"):
                values = [getattr(exits[place], f"{split}_score") for exits in runs]
                if None in values:  # nothing was held out
                    continue
                values = [100 * value for value in values]
                lines.append(
                    {
                        "row": row,
                        "exit": exit_.predictor,
                        "split": split,
                        "n": len(values),
                        "mean": round(statistics.mean(values), 2),
                        "std": round(statistics.stdev(values), 2) if len(values) > 1 else "",
                        "seeds": " ".join(map(str, seeds)),
                        "values": " ".join(f"{v:.2f}" for v in values),
                    }
                )
    return lines


def interval(diffs: list[float], digits: int) -> dict[str, Any]:
    """Mean of paired differences, its 95 % t interval, and whether that holds zero."""
    mean, error = statistics.mean(diffs), statistics.stdev(diffs) / len(diffs) ** 0.5
    reach = float(stats.t.ppf(0.975, len(diffs) - 1)) * error
    noise = mean - reach <= 0 <= mean + reach
    return {
        "n": len(diffs),
        "mean": round(mean, digits),
        "low": round(mean - reach, digits),
        "high": round(mean + reach, digits),
        "verdict": "within noise" if noise else "beyond noise",
    }


def differences(
    found: Found, rows: list[str], split: str, bases: tuple[str, ...], every_exit: bool = False
) -> list[dict[str, Any]]:
    """Paired by seed, each row minus each of the bases: of the whole network, or of every exit."""
    lines = []
    for base in bases:
        for row in rows:
            seeds = sorted({s for r, s in found if r == row} & {s for r, s in found if r == base})
            if row == base or len(seeds) < 3:  # two differences have no spread to speak of
                continue
            key = f"{split}_score"
            pairs = [[_by_predictor(found[name, s], key) for name in (row, base)] for s in seeds]
            common = [name for name in pairs[0][0] if name in pairs[0][1]]
            for predictor in common if every_exit else common[-1:]:
                diffs = [mine[predictor] - other[predictor] for mine, other in pairs]
                about = {"difference": f"{row} - {base}", "split": split}
                about |= {"exit": predictor} if every_exit else {}
                lines.append({**about, **interval(diffs, 2)})
    return lines


def _by_predictor(exits: list[ExitScore], key: str) -> dict[str, float]:
    return {exit_.predictor: 100 * getattr(exit_, key) for exit_ in exits}


def tabulate(
    name: str,
    found: Found,
    bases: tuple[str, ...],
    splits: tuple[str, ...] = ("val", "test"),
    extends: bool = False,
    every_exit: bool = False,
) -> None:
    """Print and record a study, each row's difference to the bases that are among them, too."""
    found = extended(name, found) if extends else found
    rows = list(dict.fromkeys(row for row, _ in found))
    table = [line for line in summary(found, rows) if line["split"] in splits]
    bases = tuple(base for base in bases if base in rows)
    paired = [
        line for split in splits for line in differences(found, rows, split, bases, every_exit)
    ]
    report(name, table, paired, extends)
