"""Processor time of wrong commands until they are refused, user and system.

python benchmarks/refusals.py
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from record import record
from safetensors.torch import save_file

from selfdistill.models import build

RUNS = 5
WITHOUT_TORCH = {  # goal: 1 s
    "mistyped option": ["--mehtod", "muse"],
    "unknown method": ["--method", "muze"],
    "wrong recipe key": ["--recipe", "wrong.toml"],
    "missing data folder": ["--data", "folder:nowhere"],
    "missing weights file": ["--weights", "nowhere.pth"],
    "missing teacher": ["--method", "kd", "--teacher", "nowhere"],
}
WITH_NETWORK = {  # goal: 5 s
    "unknown network": ["--model", "resnte18"],
    "unknown published network": ["--model", "timm/resnte18"],
    "unknown peer": ["--method", "dml", "--peer", "cifar/resnte18"],
    "unknown tap": ["--model", "cifar/resnet18", "--taps", "layer1,leyer2"],
    "weights of another network": ["--model", "cifar/resnet18", "--weights", "other.safetensors"],
}


def seconds(place: Path, *words: str) -> float:
    """Processor seconds of Python, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 2, 4, 6), done.stderr
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def row(place: Path, fault: str, goal: str, command: list[str]) -> dict[str, object]:
    """Median, least and most of several runs of one command."""
    used = [seconds(place, *command) for _ in range(RUNS + 1)][1:]  # the first reads and compiles
    times = {"least": min(used), "median": statistics.median(used), "most": max(used)}
    rounded = {name: f"{time:.2f}" for name, time in times.items()}
    return {"fault": fault, **rounded, "goal": goal, "n": RUNS, "refused": " ".join(command)}


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as in any installation
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["PYTHONPYCACHEPREFIX"] = str(place / "compiled")
        (place / "wrong.toml").write_text("sed = 3\n")
        save_file(build("cifar/vgg8", num_classes=10).state_dict(), place / "other.safetensors")
        rows.append(row(place, "none: Python with torch", "", ["-c", "import torch"]))
        for goal, commands in (("1", WITHOUT_TORCH), ("5", WITH_NETWORK)):
            for fault, words in commands.items():
                command = ["-m", "selfdistill", "train", *words]
                rows.append(row(place, fault, goal, command))
    record("refusals", rows)


if __name__ == "__main__":
    main()
