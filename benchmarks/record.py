"""Figures as csv: every row carries the machine, the commit and the command that made it."""

import csv
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def record(name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write results/NAME.csv anew."""
    about = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "torch": torch.__version__,
        "commit": commit(),
        "command": shlex.join(["python", *sys.argv]),
    }
    full = [{**row, **about} for row in rows]
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(full[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(full)
    return path


def machine() -> str:
    """Processor or GPU, and threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {torch.get_num_threads()} threads"


def commit() -> str:
    """The short hash of the checkout."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RESULTS
    )
    return found.stdout.strip()
