"""Segmentation of CamVid and detection on BCCD, with networks that a CPU trains in minutes.

    uv run python benchmarks/accuracy/scenes.py --table camvid --data folder:camvid
    uv run python benchmarks/accuracy/scenes.py --table bccd --data folder:bccd

CamVid at half its size (367 training, 101 validation, 233 test images, 11 classes) and BCCD (205,
87, 72 images of blood cells, 3 classes), with masks and boxes in any of the layouts that the
program reads. All rows share one recipe and the same seeds; nothing was chosen by test images. A
run that is there is not made again, one that was cut off goes on. Two results: mean and standard
deviation of each exit at the last epoch (mIoU, mAP over IoU .5 … .95), and paired differences by
seed with their 95 % t interval. The rows that end in -mosaic add YOLOv5's mosaic, shift, scale and
colors, in place of the zoom, to the row of that name; five seeds, and what is said of them is a
paired difference on test images whose interval holds no zero:

    uv run python benchmarks/accuracy/scenes.py --table bccd --data folder:bccd --precision fp32 \\
        --rows ce ce-mosaic --seeds 0 1 2 3 4 --runs runs/mosaic --name accuracy-bccd-mosaic
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from seeds import EXTEND, tabulate, trained

RECIPE: dict[str, Any] = {"precision": "bf16", "channels_last": True, "batch_size": 16}
CAMVID = {"task": "segmentation", "ignore_index": 11, "image_size": 128, "lr": 0.05, "epochs": 40}
BCCD = {"task": "detection", "model": "yolov5/n", "image_size": 160, "lr": 0.02, "epochs": 40}
DETECTOR = {"supervised_weight": 1.0, "soft_weight": 0.0}
MOSAIC = {
    "mosaic_probability": 1.0,
    "scale_jitter": 0.5,
    "shift": 0.1,
    "hsv_jitter": (0.015, 0.7, 0.4),
}
TABLES: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    "camvid": (
        {**CAMVID, "warmup_epochs": 4},
        {
            "ce": {"method": "ce"},
            "exits": {"method": "exits"},
            "muse-add": {"method": "muse"},
            "muse-mul": {"method": "muse", "combine": "mul"},
            "frskd": {"method": "frskd"},
        },
    ),
    "bccd": (
        {**BCCD, "warmup_epochs": 3, "lr_end_ratio": 0.2, "momentum": 0.937},
        {
            "ce": {"method": "ce"},
            "exits": {"method": "exits", **DETECTOR},
            "muse-add": {"method": "muse", **DETECTOR},
            "muse-mul": {"method": "muse", "combine": "mul", **DETECTOR},
            "ce-mosaic": {"method": "ce", **MOSAIC},
            "muse-mul-mosaic": {"method": "muse", "combine": "mul", **DETECTOR, **MOSAIC},
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", default="camvid", choices=list(TABLES))
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--rows", nargs="+", help="some of the table's rows")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default=RECIPE["precision"], help="fp32 where bf16 is slow")
    parser.add_argument("--name", help="results/NAME.csv; accuracy-TABLE if not given")
    parser.add_argument("--done", action="store_true", help="train nothing, tabulate what is there")
    parser.add_argument("--extend", action="store_true", help=EXTEND)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shared, table = TABLES[args.table]
    shared = {**shared, "epochs": args.epochs or shared["epochs"]}
    rows, runs = args.rows or list(table), args.runs / args.table
    wanted = [(row, seed) for seed in args.seeds for row in rows]
    if args.done:
        wanted = [(r, s) for r, s in wanted if (runs / r / f"s{s}" / "exits.csv").exists()]
    keys = {**RECIPE, **shared, "val_every_epochs": shared["epochs"], "data": args.data}
    keys["precision"] = args.precision
    found = {
        (row, seed): trained(runs / row / f"s{seed}", **{**keys, **table[row], "seed": seed})
        for row, seed in wanted
    }
    name = args.name or f"accuracy-{args.table}"
    tabulate(name, found, ("ce", "exits", "ce-mosaic"), extends=args.extend)


if __name__ == "__main__":
    main()
