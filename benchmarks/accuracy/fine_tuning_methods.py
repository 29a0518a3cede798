"""The eighth part of docs/study.md: do methods help when a pretrained network is fine-tuned?

    uv run python benchmarks/accuracy/fine_tuning_methods.py --data folder:clothing

EfficientNet-lite0 with ImageNet's weights, by the preset `finetune`. `short` is plain training of
the network cut before its last stage; `kd` learns from the whole network that plain training made
of the same pictures by a seed of its own. The weights are those of benchmarks/accuracy/
fine_tuning.py. A run that is there is not made again, one that was cut off goes on. With `--short`
the runs are those that `doctor --will-it-help` makes, judged by validation images; `kd` has the
teacher of the full ones.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from seeds import EXTEND, tabulate, trained

from selfdistill.comparison.prediction import plan_short_runs
from selfdistill.records.exit_scores import ExitScore

MODEL = "timm/tf_efficientnet_lite0"
TEACHER_SEED = 100
ROWS: dict[str, dict[str, Any]] = {
    "ce": {"method": "ce"},
    "short": {"method": "ce", "model": f"{MODEL}@blocks.4"},
    **{name: {"method": name} for name in ("exits", "muse", "frskd", "cskd", "kd")},
}
RECIPE: dict[str, Any] = {
    "model": MODEL,
    "preset": "finetune",
    "image_size": 64,
    "mean": (0.5,),  # those of the weights, which their file does not tell
    "std": (0.5,),
    "batch_size": 32,
    "precision": "fp32",  # on every machine
    "device": "cpu",
}


def run(row: str, seed: int, args: argparse.Namespace) -> list[ExitScore]:
    """The exits of one run, trained if it is not there yet."""
    keys = RECIPE | {"weights": str(args.weights), "data": args.data, "epochs": args.epochs}
    keys |= {"val_every_epochs": args.epochs, "max_train_images": args.limit}
    out = args.runs / row / f"s{seed}"
    teacher = {}
    if row == "kd":
        teacher["teacher"] = args.runs / "teacher"
        trained(teacher["teacher"], **{**keys, **ROWS["ce"], "seed": TEACHER_SEED})
    if args.short:
        out = args.runs / "a-quarter" / row / f"s{seed}"
        keys |= plan_short_runs(["exits"], **keys).shorter
    return trained(out, **{**keys, **ROWS[row], **teacher, "seed": seed})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="folder:clothing")
    parser.add_argument("--weights", type=Path, default=Path("lite0.safetensors"))
    parser.add_argument("--limit", type=int, default=600, help="training images")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--runs", type=Path, default=Path("runs/fine-tuning-methods"))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--name", default="accuracy-fine-tuning-methods", help="results/NAME.csv")
    parser.add_argument("--short", action="store_true", help="a quarter of the epochs")
    parser.add_argument("--extend", action="store_true", help=EXTEND)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {(row, seed): run(row, seed, args) for seed in args.seeds for row in args.rows}
    split = "val" if args.short else "test"
    tabulate(args.name, found, ("ce", "short", "exits"), (split,), args.extend)


if __name__ == "__main__":
    main()
