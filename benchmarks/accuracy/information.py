"""What the stages of the networks of `cifar100_small.py` know of each other.

    uv run python benchmarks/accuracy/information.py --runs runs/cifar100-small

The runs must be there (`cifar100_small.py` makes them) and their data where they were. Critics
alone are trained on the features of each finished network, and evaluated on held-out images
that no run was trained on. n counts runs of one row with different seeds; the critics' seed is the
run's. Two results: the losses of each module, and their differences to `ce` and `exits`, paired by
seed, with 95 % t intervals. `--at-bottlenecks` measures rows with exits behind their bottlenecks.
`--picture` draws the losses.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import report
from seeds import interval

from selfdistill.information import (
    CriticLoss,
    EstimatorConfig,
    InformationResult,
    estimate_information,
)
from selfdistill.information.charts import FAMILIES, over_depth
from selfdistill.reporting.charts.standalone import standalone_svg
from selfdistill.runs.networks import networks_under_test


def measured(args: argparse.Namespace) -> InformationResult:
    """All runs; the seed of a row is the seed of its run."""
    rows: list[CriticLoss] = []
    for seed in args.seeds:
        names = [str(args.runs / row / f"s{seed}") for row in args.rows]
        chosen, data = networks_under_test(names, at_bottlenecks=args.at_bottlenecks)
        config = EstimatorConfig(steps=args.steps, seeds=(seed,))
        networks = dict(zip(args.rows, chosen.values(), strict=True))
        found = estimate_information(networks, data, config)
        rows += found.rows
        print(f"seed {seed} is measured", flush=True)
    return InformationResult(rows, found.taps, found.chance, found.held_out, found.config)


def losses(found: InformationResult) -> dict[tuple[str, str], dict[int, float]]:
    """{(network, term): {seed: the last held-out loss}}."""
    last = max(row.step for row in found.rows)
    kept: dict[tuple[str, str], dict[int, float]] = {}
    for row in found.rows:
        if row.step == last and row.split == "held out":
            kept.setdefault((row.network, row.term), {})[row.seed] = row.loss
    return kept


def summary(found: InformationResult) -> list[dict[str, Any]]:
    """Mean and standard deviation over the runs of a row."""
    lines = []
    for (row, term), by_seed in losses(found).items():
        values = list(by_seed.values())
        lines.append(
            {
                "row": row,
                "term": term,
                "n": len(values),
                "mean": round(statistics.mean(values), 4),
                "std": round(statistics.stdev(values), 4) if len(values) > 1 else "",
                "chance": round(found.chance, 4),
                "steps": found.config.steps,
                "images": found.held_out,
            }
        )
    return lines


def differences(found: InformationResult, bases: list[str]) -> list[dict[str, Any]]:
    """Each row minus each of the bases, paired by seed; below 0 the row has more information."""
    lines, kept = [], losses(found)
    for base in bases:
        for (row, term), mine in kept.items():
            theirs = kept.get((base, term), {})
            diffs = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
            if row == base or len(diffs) < 3:
                continue
            about = {"difference": f"{row} - {base}", "term": term}
            lines.append({**about, **interval(diffs, 4)})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar100-small"))
    parser.add_argument("--rows", nargs="+", default=["ce", "exits", "muse-add", "muse-mul"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--at-bottlenecks", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="information-cifar100-small", help="results/NAME.csv")
    parser.add_argument("--picture", type=Path, help="write an SVG file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = measured(args)
    table = summary(found)
    paired = differences(found, [base for base in ("ce", "exits") if base in args.rows])
    report(args.name, table, paired)
    if args.picture:
        panels = [(title, over_depth(found, f, f)) for f, title in FAMILIES.items()]
        args.picture.write_text(standalone_svg(panels, 2), encoding="utf-8")


if __name__ == "__main__":
    main()
