"""The first part of docs/study.md: ResNet-18 on a quarter of CIFAR-100, by the ledger's recipes.

    uv run python benchmarks/accuracy/wide_network.py --data npz:cifar100-quarter.npz

The data are 12,500 training images of CIFAR-100, 125 of each class, and its test images, in
MedMNIST's layout; no image is held out, as nothing is chosen. A run that is there is not made
again, one that was cut off goes on. Results: each exit at the last epoch, and paired differences
of each by seed with their 95 % t interval.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record
from seeds import differences, summary, trained

from selfdistill.reproduction.ledger import find_row

ROWS = {"ce": "baseline", "exits": "ce+kd", "muse-add": "mi+si+ce+kd", "muse-mul": "mixsi+ce+kd"}
CHANGES = {
    "epochs": 100,
    "milestones": (38, 65, 90),  # the paper's 75, 130 and 180 of 200
    "precision": "bf16",
    "channels_last": True,
    "compile": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="npz:cifar100-quarter.npz")
    parser.add_argument("--runs", type=Path, default=Path("runs/wide-network"))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--name", default="accuracy-cifar100-quarter-resnet18")
    parser.add_argument("--done", action="store_true", help="train nothing, tabulate what is there")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    found = {}
    for seed in args.seeds:
        for row in args.rows:
            out = args.runs / f"{ROWS[row]}-s{seed}"
            if args.done and not (out / "exits.csv").exists():
                continue
            recipe = args.runs / f"{ROWS[row]}.toml"
            recipe.write_text(find_row(f"muse/table5/resnet18/{ROWS[row]}").to_toml())
            keys = {**CHANGES, "data": args.data, "seed": seed}
            found[row, seed] = trained(out, recipe=recipe, **keys)
    rows = [row for row in args.rows if any(row == name for name, _ in found)]
    table = summary(found, rows)
    paired = differences(found, rows, "test", ("ce", "exits"), every_exit=True)
    for line in table + paired:
        print(*line.values(), sep="\t")
    for name, lines in ((args.name, table), (f"{args.name}-paired", paired)):
        if lines:
            print(record(name, lines, **_trained_on(args.runs)))


def _trained_on(runs: Path) -> dict[str, str]:
    """The device and torch of the runs, which may have been made on another machine."""
    about = json.loads(next(runs.glob("*/environment.json")).read_text())
    machine = ", ".join(about["gpus"]) or about["processor"]
    return {"machine": machine, "torch": about["packages"]["torch"]}


if __name__ == "__main__":
    main()
