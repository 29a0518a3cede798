"""The first part of docs/study.md: ResNet-18 on a quarter of CIFAR-100, by the ledger's recipes.

    uv run python benchmarks/accuracy/wide_network.py --data npz:cifar100-quarter.npz

The data are 12,500 training images of CIFAR-100, 125 of each class, and its test images, in
MedMNIST's layout. A run that is there is not made again, one that was cut off goes on. Results:
each exit at the last epoch; paired differences of each by seed with their 95 % t interval; and,
as `-training`, every loss in the first and the last epoch, and the images a second.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record
from seeds import differences, summary

from selfdistill.records.exit_scores import ExitScore, read_exit_scores
from selfdistill.reproduction.ledger import find_row
from selfdistill.runs.train import load_or_train_exits

ROWS = {"ce": "baseline", "exits": "ce+kd", "muse-add": "mi+si+ce+kd", "muse-mul": "mixsi+ce+kd"}
CHANGES: dict[str, Any] = {
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
    wanted = [(row, seed) for seed in args.seeds for row in args.rows]
    places = {key: args.runs / key[0] / f"s{key[1]}" for key in wanted}
    if args.done:
        places = {key: place for key, place in places.items() if (place / "exits.csv").exists()}
    found = {key: run(*key, place, args) for key, place in places.items()}
    rows = [row for row in args.rows if any(row == name for name, _ in found)]
    tables = {
        args.name: summary(found, rows),
        f"{args.name}-paired": differences(found, rows, "test", ("ce", "exits"), every_exit=True),
        f"{args.name}-training": [line for row in rows for line in training(row, places)],
    }
    for name, lines in tables.items():
        for line in lines:
            print(*line.values(), sep="\t")
        if lines:
            elsewhere = trained_on(next(iter(places.values())))
            print(record(name, lines, elsewhere=elsewhere))


def run(row: str, seed: int, place: Path, args: argparse.Namespace) -> list[ExitScore]:
    """The exits of one run, trained if it is not there yet."""
    if args.done:
        return read_exit_scores(place)
    paper_row = find_row(f"muse/table5/resnet18/{ROWS[row]}")
    return load_or_train_exits(paper_row.recipe(seed, data=args.data, **CHANGES), place)


def training(row: str, places: dict[tuple[str, int], Path]) -> list[dict[str, Any]]:
    """What the runs of a row logged: each loss term, weighted, and the images a second."""
    logs = [entries(place) for (name, _), place in places.items() if name == row]
    epochs = [[e["losses"] for e in log if e["kind"] == "epoch"] for log in logs]
    speeds = [statistics.median(e["images_per_second"] for e in log if "lr" in e) for log in logs]
    about = {"row": row, "n": len(logs), "images_per_second": round(statistics.mean(speeds))}
    return [
        {
            **about,
            "loss": term,
            "first_epoch": round(statistics.mean(of_run[0][term] for of_run in epochs), 3),
            "last_epoch": round(statistics.mean(of_run[-1][term] for of_run in epochs), 3),
        }
        for term in epochs[0][0]
    ]


def entries(place: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]


def trained_on(place: Path) -> dict[str, str]:
    """The device and torch of a run, which may have been made on another machine."""
    about = json.loads((place / "environment.json").read_text())
    machine = ", ".join(about["gpus"]) or about["processor"]
    return {"machine": machine, "torch": about["packages"]["torch"]}


if __name__ == "__main__":
    main()
