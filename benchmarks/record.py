"""Figures as csv: every row carries the machine, the commit and the command that made it."""

import csv
import shlex
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch

from selfdistill.core.machine import describe_machine, git_commit

RESULTS = Path(__file__).parent / "results"


def record(name: str, rows: Iterable[Mapping[str, Any]], **elsewhere: str) -> Path:
    """Write results/NAME.csv anew; `elsewhere` names what differs where the runs were made."""
    about = {
        "date": date.today().isoformat(),
        "machine": describe_machine("cuda" if torch.cuda.is_available() else "cpu"),
        "torch": torch.__version__,
        "commit": (git_commit() or "")[:7],
        "command": shlex.join(["python", *sys.argv]),
    } | elsewhere
    full = [{**row, **about} for row in rows]
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(full[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(full)
    return path


def report(name: str, table: list[dict[str, Any]], paired: list[dict[str, Any]]) -> None:
    """Print and record a study: NAME.csv and, where there are pairs, NAME-paired.csv."""
    for found, ending in ((table, ""), (paired, "-paired")):
        for line in found:
            print(*line.values(), sep="\t")
        if found:
            print(record(name + ending, found))
