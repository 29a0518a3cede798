"""Processor time of a comparison of short runs: forked from one process, or each by itself.

python benchmarks/speed/short_runs.py
"""

import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record

from selfdistill.comparison import launch
from selfdistill.comparison.compare import compare

SETTINGS: dict[str, Any] = {
    "model": "cifar/resnet8",
    "epochs": 1,
    "max_train_images": 256,
    "device": "cpu",
}
SEEDS, PAIRS = "0-3", 3


def seconds(forked: bool, place: Path) -> float:
    """Processor seconds, user and system, of eight runs."""
    launch._CAN_FORK = forked
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    compare("exits", seeds=SEEDS, jobs=1, threads=1, out=str(place), **SETTINGS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for pair in range(PAIRS):
            forked = seconds(True, Path(folder) / f"forked{pair}")
            alone = seconds(False, Path(folder) / f"alone{pair}")
            rows.append({"pair": pair, "runs": 8, "forked_s": f"{forked:.1f}"})
            rows[-1] |= {"alone_s": f"{alone:.1f}", "ratio": f"{forked / alone:.2f}"}
            print(rows[-1])
    record("speed-short-runs", rows)


if __name__ == "__main__":
    main()
