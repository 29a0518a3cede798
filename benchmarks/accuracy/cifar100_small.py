"""Every method on a few images of CIFAR-100, at a size that a CPU trains in minutes.

    uv run python benchmarks/accuracy/cifar100_small.py --data npz:cifar100.npz --table self

`cifar100.npz` is CIFAR-100 in MedMNIST's layout with 5,000 training images as `val_images`. Choices
are made on those; test images are looked at once, for the table. The tables are `self`, `offline`
(one teacher for all, trained first on the same images; where a method wants heads on it, they are
trained on that network as it is), `online`, `joined` (two methods at once), `pool` (the teacher has
seen all 45,000 training images, and some methods learn from images without labels, too), and
`forms`, the third part of docs/study.md.
All rows of a table share one recipe and the same seeds, and every method has its paper's defaults;
only `byot` has head and soft weight of `exits` and `muse`, so that rows with exits differ in what
they add to labels and soft labels. A run that is there is not made again, one that was cut off goes
on. Two results: mean and standard deviation of each exit at the last epoch, and paired differences
by seed with their 95 % t interval.
"""

import argparse
from pathlib import Path
from typing import Any

import muse_forms
import torch
from seeds import EXTEND, tabulate, trained

import selfdistill.methods  # noqa: F401  registers them
from selfdistill.recipe.options import method_classes
from selfdistill.recipe.schema import literal
from selfdistill.records.exit_scores import ExitScore

RECIPE: dict[str, Any] = {
    "model": "cifar/resnet10_w16",
    "batch_size": 128,
    "lr": 0.1,
    "weight_decay": 5e-4,
    "crop_padding": 4,
    "flip": True,
    "precision": "bf16",
    "channels_last": True,
}
Rows = dict[str, dict[str, Any]]
SELF: Rows = {
    "ce": {"method": "ce"},
    "exits": {"method": "exits"},
    "byot": {"method": "byot", "bottleneck": "slim", "soft_weight": 0.3},
    "muse-add": {"method": "muse", "information_weight": 0.1},
    "muse-mul": {"method": "muse", "information_weight": 0.1, "combine": "mul"},
    "muse-class": {"method": "muse", "information_weight": 0.3, "positives": "class"},
    "sad": {"method": "sad"},
    "snapshot": {"method": "snapshot"},
    "cskd": {"method": "cskd"},
    "one": {"method": "one"},
    "frskd": {"method": "frskd"},
    "ddgsd": {"method": "ddgsd"},
    "mixskd": {"method": "mixskd"},
    "pskd": {"method": "pskd"},
    "uskd": {"method": "uskd"},
    "dks": {"method": "dks"},
}
OFFLINE: Rows = {
    name: {"method": name, "model": "cifar/resnet8"}
    for name in (
        *("ce", "kd", "fitnets", "at", "vid", "crd", "nst", "sp", "rkd", "dkd", "mimkd"),
        *("srrl", "wcord", "lakd", "sskd", "hsakd", "residual-kd"),
        *("dist", "nkd", "ttm", "reviewkd", "ofa-kd", "mlkd"),
    )
} | {
    "kd, standardized": {  # by its authors' temperature and weight
        **{"method": "kd", "model": "cifar/resnet8", "standardize_logits": True},
        **{"temperature": 2, "soft_weight": 9},
    },
    "wttm": {"method": "ttm", "model": "cifar/resnet8", "weighted": True},
    "muse-offline-add": {"method": "muse-offline", "model": "cifar/resnet8"},
    "muse-offline-mul": {"method": "muse-offline", "model": "cifar/resnet8", "combine": "mul"},
}
ONLINE: Rows = {
    name: {"method": name, "model": "cifar/resnet8"} for name in ("ce", "dml", "kdcl", "afd")
} | {
    "muse-online-add": {"method": "muse-online", "model": "cifar/resnet8"},
    "muse-online-mul": {"method": "muse-online", "model": "cifar/resnet8", "combine": "mul"},
}
JOINED: Rows = {
    name: {"method": name}
    for name in (
        *("ce", "exits", "mixskd", "frskd"),
        *("mixskd+exits", "mixskd+muse", "frskd+exits", "frskd+muse", "mixskd+frskd"),
    )
}
MUSE: dict[str, Any] = {"method": "muse"}
FORM = {"method": "muse-form", "imports": (str(Path(muse_forms.__file__)),)}
FORMS: Rows = {
    "ce": {"method": "ce"},
    "exits": {"method": "exits"},
    **{f"jsd {w}": {**MUSE, "information_weight": w} for w in (0.01, 0.03, 0.1, 0.3, 1.0)},
    "mul 0.1": {**MUSE, "combine": "mul"},
    **{
        f"infonce {w}": {**MUSE, "estimator": "infonce", "information_weight": w}
        for w in (0.03, 0.1)
    },
    "cosine": {**FORM, "form": "cosine", "estimator": "infonce", "information_weight": 0.03},
    "concat": {**MUSE, "critic": "concat", "critic_width": 128},
    "roll": {**MUSE, "negatives": "roll"},
    "raw": {**MUSE, "feature_source": "raw"},
    "encoded": {**MUSE, "feature_source": "raw", "si_global_view": "encoded"},
    "detached": {**MUSE, "detach_last": True},
    "MI alone": {**MUSE, "si_weight": 0.0},
    "SI alone": {**MUSE, "mi_weight": 0.0},
    "class": {**MUSE, "positives": "class"},
    **{
        form: {**FORM, "form": form}
        for form in ("deep local", "other class", "fixed bottleneck", "late", "early", "views")
    },
    "exits-two-views": {**FORM, "method": "exits-two-views"},
}
POOL: Rows = {
    **{name: {"method": name, "model": "cifar/resnet8"} for name in ("ce", "kd", "srrl")},
    **{
        f"srrl-{form}": {"method": "srrl", "model": "cifar/resnet8", "open_set": form}
        for form in ("joint", "separate")
    },
    # its epochs are of the pool: as many steps as the other rows have, with 9,834 images
    "kd3": {"method": "kd3", "model": "cifar/resnet8", "epochs": 4, "warmup_epochs": 0.8},
    **{
        name: OFFLINE[name]
        for name in (
            *("rkd", "crd", "dist", "nkd", "ttm", "wttm", "kd, standardized"),
            *("reviewkd", "ofa-kd", "mlkd", "muse-offline-add", "muse-offline-mul", "mimkd"),
        )
    },
    # the teacher's outputs are kept for so many views of each image, which come again
    "kd, 1 view": {**OFFLINE["kd"], "cache_views": 1},
    "kd, 4 views": {**OFFLINE["kd"], "cache_views": 4},
}
TABLES = {
    "self": SELF,
    "offline": OFFLINE,
    "online": ONLINE,
    "joined": JOINED,
    "forms": FORMS,
    "pool": POOL,
}
BASES = {
    "self": ("ce", "exits"),
    "offline": ("ce", "kd"),
    "online": ("ce", "dml"),
    "joined": ("ce", "exits", "mixskd", "frskd"),
    "forms": ("exits", "exits-two-views"),
    "pool": ("ce", "kd", "srrl"),
}
TEACHER: dict[str, Any] = {"method": "ce", "model": "cifar/resnet20"}
WELL_TAUGHT: dict[str, Any] = {"max_train_images": None, "epochs": 6, "warmup_epochs": 1}


def run(row: str, seed: int, args: argparse.Namespace) -> list[ExitScore]:
    """The exits of one run, trained if it is not there yet."""
    keys = TABLES[args.table][row]
    shape = {
        "max_train_images": args.limit,
        "epochs": args.epochs,
        "warmup_epochs": args.epochs / 5,
    }
    whole = {**RECIPE, **shape, "val_every_epochs": args.epochs, "data": args.data}
    whole |= {"precision": args.precision, "image_size": args.image_size}
    for pair in args.set:
        key, _, value = pair.partition("=")
        whole[key] = literal(value)
    method, *_ = method_classes(keys["method"]).values()  # no joined row has a teacher or a pool
    if method.kind == "offline":
        teachers = args.teachers or args.runs
        teacher = teachers / "teacher"
        more = WELL_TAUGHT if args.table == "pool" else {}
        trained(teacher, **{**whole, **TEACHER, **more, "seed": 0})
        if method.teacher_method:  # heads on the same network, which stays as it is
            heads = {"method": method.teacher_method, "backbone": "frozen", "weights": str(teacher)}
            teacher = teachers / method.teacher_method
            trained(teacher, **{**whole, **TEACHER, **heads, "seed": 0})
        keys = {**keys, "teacher": teacher}
    if "cache_views" in keys:  # other views for each seed, so that the spread holds their draw, too
        keys = {**keys, "cache_seed": seed}
    if method.needs.unlabeled or "open_set" in keys:
        keys = {**keys, "extra": args.pool}
    return trained(args.runs / row / f"s{seed}", **{**whole, **keys, "seed": seed})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", default="self", choices=list(TABLES))
    parser.add_argument("--data", default="npz:cifar100.npz")
    parser.add_argument("--pool", default="folder:web64", help="images without labels")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar100-small"))
    parser.add_argument("--teachers", type=Path, help="other runs, whose teachers are taken")
    parser.add_argument("--limit", type=int, default=4000, help="training images")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--name", default="accuracy-cifar100-small", help="results/NAME.csv")
    parser.add_argument("--rows", nargs="+", help="some of the table's rows")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--splits", nargs="+", default=["val", "test"], choices=["val", "test"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default=RECIPE["precision"], help="fp32 where bf16 is slow")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for all rows")
    parser.add_argument("--done", action="store_true", help="train nothing, tabulate what is there")
    parser.add_argument("--every-exit", action="store_true", help="compare each exit, too")
    parser.add_argument("--extend", action="store_true", help=EXTEND)
    args = parser.parse_args()
    rows = args.rows or list(TABLES[args.table])
    torch.set_num_threads(args.threads)
    wanted = [(row, seed) for seed in args.seeds for row in rows]
    if args.done:
        wanted = [(r, s) for r, s in wanted if (args.runs / r / f"s{s}" / "exits.csv").exists()]
    found = {(row, seed): run(row, seed, args) for row, seed in wanted}
    bases, splits = BASES[args.table], tuple(args.splits)
    tabulate(args.name, found, bases, splits, args.extend, args.every_exit)


if __name__ == "__main__":
    main()
