"""The second part of docs/study.md: what the exit before the last stage has when fine-tuning.

    uv run python benchmarks/accuracy/fine_tuning.py --data folder:clothing

A pretrained EfficientNet-lite0 is fine-tuned on a few pictures, with its own linear head and with
what an exit has besides: another rate, a normalization, a bottleneck, a shallower feature, one at
a time. The method `exits` makes two rows, of the network and of its exit before the last stage. The
weights are ImageNet's, in timm's order and names for `tf_efficientnet_lite0`. A run that is there
is not made again, one that was cut off goes on.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from seeds import EXTEND, tabulate, trained
from torch import Tensor, nn

from selfdistill.models import build
from selfdistill.modules.bottlenecks import SlimBottleneck
from selfdistill.records.exit_scores import ExitScore

EXIT = "exits, before the last stage"
MODEL = "timm/tf_efficientnet_lite0"
RECIPE: dict[str, Any] = {
    "preset": "scratch",  # rows whose networks are given as modules have it anyway
    "image_size": 96,
    "mean": (0.5,),
    "std": (0.5,),
    "batch_size": 32,
    "lr": 0.01,
    "warmup_epochs": 0.0,
    "precision": "fp32",  # on every machine
    "device": "cpu",
}
STAGES, SHALLOW, SIDE = 5, 112, 6  # before the last tap but one: stages, its channels and cells
DEEP = 1280  # channels of the last feature, whose side is half as long


class Gain(nn.Module):
    """A linear layer whose rate under SGD is `rate` times the optimizer's.

    The same function to begin with: the output is multiplied by √rate, and the weights are divided
    by it.
    """

    def __init__(self, linear: nn.Linear, rate: float) -> None:
        super().__init__()
        self.linear, self.gain = linear, rate**0.5
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.div_(self.gain)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) -> (B, classes)."""
        return self.gain * self.linear(x)  # type: ignore[no-any-return]


def bottleneck(channels: int, side: int) -> nn.Module:
    """An exit's, with the channels and the cells of the network's last feature."""
    return SlimBottleneck((channels, side, side), (DEEP, SIDE // 2, SIDE // 2))


def faster_head(network: Any) -> nn.Module:
    """The network, its classifier at ten times the rate."""
    network.classifier = Gain(network.classifier, 10)
    return network  # type: ignore[no-any-return]


def normalized(network: Any) -> nn.Module:
    """The network with a normalization before its classifier."""
    network.classifier = nn.Sequential(nn.BatchNorm1d(DEEP), network.classifier)
    return network  # type: ignore[no-any-return]


def refined(network: Any) -> nn.Module:
    """The network with an exit's bottleneck between its last feature and its classifier."""
    network.bn2 = nn.Sequential(network.bn2, bottleneck(DEEP, SIDE // 2))
    return network  # type: ignore[no-any-return]


def cut(network: Any, *layers: nn.Module) -> nn.Module:
    """The network up to the exit, with layers of its own behind it."""
    stages = list(network.blocks.children())[:STAGES]
    return nn.Sequential(network.conv_stem, network.bn1, *stages, *layers)


def pooled(width: int, classes: int, *norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *norm, nn.Linear(width, classes))


ROWS: dict[str, tuple[float, Callable[[Any, int], nn.Module]]] = {
    "linear": (1, lambda network, classes: network),
    "linear, rate 1/10": (0.1, lambda network, classes: network),
    "linear, rate 1/3": (1 / 3, lambda network, classes: network),
    "linear, rate 3": (3, lambda network, classes: network),
    "linear, rate 10": (10, lambda network, classes: network),
    "linear, head's rate 10": (1, lambda network, classes: faster_head(network)),
    "norm": (1, lambda network, classes: normalized(network)),
    "bottleneck": (1, lambda network, classes: refined(network)),
    "cut": (1, lambda network, classes: cut(network, pooled(SHALLOW, classes))),
    "cut, norm": (
        1,
        lambda network, classes: cut(network, pooled(SHALLOW, classes, nn.BatchNorm1d(SHALLOW))),
    ),
    "cut, bottleneck": (
        1,
        lambda network, classes: cut(network, bottleneck(SHALLOW, SIDE), pooled(DEEP, classes)),
    ),
}
"""Factor of the rate, and from the pretrained network and the number of classes to the network."""


def run_dir(row: str, seed: int, runs: Path) -> Path:
    """Where a run of a row lies."""
    return runs / row.replace(", ", "-").replace(" ", "-").replace("/", "-") / f"s{seed}"


def run(row: str, seed: int, args: argparse.Namespace) -> list[ExitScore]:
    """The exits of one run, trained if it is not there yet."""
    shape = {
        "epochs": args.epochs,
        "val_every_epochs": args.epochs,
        "data": args.data,
        "seed": seed,
    }
    keys = RECIPE | shape | ({"max_train_images": args.limit} if args.limit else {})
    out = run_dir(row, seed, args.runs)
    if row == "exits":
        return trained(out, method="exits", model=MODEL, weights=str(args.weights), **keys)
    rate, change = ROWS[row]
    torch.manual_seed(seed)
    network = build(MODEL, num_classes=args.classes, weights=str(args.weights))
    keys["lr"] *= rate
    return trained(out, method="ce", model=change(network, args.classes), **keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="folder:clothing")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--weights", type=Path, default=Path("lite0.safetensors"))
    parser.add_argument("--limit", type=int, default=600, help="training images; 0 takes all")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--runs", type=Path, default=Path("runs/fine-tuning"))
    parser.add_argument("--rows", nargs="+", default=[*ROWS, "exits"], choices=[*ROWS, "exits"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--split", default="val", choices=["val", "test"])
    parser.add_argument("--name", default="accuracy-fine-tuning-screen", help="results/NAME.csv")
    parser.add_argument("--extend", action="store_true", help=EXTEND)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {(row, seed): run(row, seed, args) for seed in args.seeds for row in args.rows}
    if "exits" in args.rows:  # its exit is compared as a network of its own
        for seed in args.seeds:
            *_, before_last, whole = found["exits", seed]
            found["exits", seed] = [whole]
            found[EXIT, seed] = [replace(before_last, predictor=whole.predictor)]
    tabulate(args.name, found, ("linear", "cut, bottleneck"), (args.split,), args.extend)


if __name__ == "__main__":
    main()
