"""SKD-SRL on clips of sport actions, with a network that a CPU trains.

    uv run python benchmarks/accuracy/clips.py --data folder:actions

The data are 964 clips of 16 frames of ten actions, in folders of frames with a train and a test
part, brought to 32×32. All rows share recipe, network and seeds, and nothing is chosen on test
clips: a row's figures are those of the last epoch. `two-views` is SKD-SRL without its terms,
cross-entropy of the two views alone, which takes a step of the same cost: what SKD-SRL gains over
it is what its terms gain. The scene gives much of the class away, and one frame is far from the
next. A run that is there is not made again, one that was cut off goes on. Two results: mean and
standard deviation, and paired differences by seed with their 95 % t interval.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from seeds import tabulate, trained

RECIPE: dict[str, Any] = {
    "task": "clips",
    "model": "clips/r3d10_w8",
    "image_size": 32,
    "clip_frames": 8,
    "clip_stride": 2,
    "batch_size": 32,
    "epochs": 30,
    "lr": 0.05,
    "warmup_epochs": 2,
    "val_fraction": 0.0,
}
ROWS: dict[str, dict[str, Any]] = {
    "ce": {"method": "ce"},
    "two-views": {"method": "skd-srl", "soft_weight": 0.0, "similarity_weight": 0.0},
    "skd-srl": {"method": "skd-srl"},
    "skd-srl-soft": {"method": "skd-srl", "similarity_weight": 0.0},
    "skd-srl-similarity": {"method": "skd-srl", "soft_weight": 0.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/clips"))
    parser.add_argument("--rows", nargs="+", default=list(ROWS)[:3], choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=RECIPE["epochs"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="accuracy-actions")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = RECIPE | {"data": args.data, "epochs": args.epochs}
    found = {
        (row, seed): trained(args.runs / row / f"s{seed}", seed=seed, **recipe, **ROWS[row])
        for seed in args.seeds
        for row in args.rows
    }
    tabulate(args.name, found, ("ce", "two-views"))


if __name__ == "__main__":
    main()
