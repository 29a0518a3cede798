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


def recorded(name: str) -> list[dict[str, str]]:
    """The lines of results/NAME.csv; none where it was not made."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def record(
    name: str,
    rows: Iterable[Mapping[str, Any]],
    extends: bool = False,
    elsewhere: Mapping[str, str] | None = None,
) -> Path:
    """Write results/NAME.csv anew.

    `elsewhere` names what differs where the runs were made. Where the rows hold those of an
    earlier file, too, its machine, commit and command stay beside the new ones.
    """
    about = {
        "date": date.today().isoformat(),
        "machine": describe_machine("cuda" if torch.cuda.is_available() else "cpu"),
        "torch": torch.__version__,
        "commit": (git_commit() or "")[:7],
        "command": shlex.join(["python", *sys.argv]),
    } | dict(elsewhere or {})
    for line in recorded(name)[:1] if extends else ():
        for key, value in about.items():
            earlier = line[key].split("; ")
            about[key] = "; ".join(earlier if value in earlier else [*earlier, value])
    full = [{**row, **about} for row in rows]
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(full[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(full)
    return path


def report(
    name: str, table: list[dict[str, Any]], paired: list[dict[str, Any]], extends: bool = False
) -> None:
    """Print and record a study: NAME.csv and, where there are pairs, NAME-paired.csv."""
    for found, ending in ((table, ""), (paired, "-paired")):
        for line in found:
            print(*line.values(), sep="\t")
        if found:
            print(record(name + ending, found, extends))
