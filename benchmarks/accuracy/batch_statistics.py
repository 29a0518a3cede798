"""Do lagging batch statistics explain the fine-tuned rows of docs/study.md, part 2?

    uv run python benchmarks/accuracy/batch_statistics.py --data folder:clothing

Finished runs of benchmarks/accuracy/fine_tuning.py are evaluated three times, on training and
validation images: with the running statistics of their batch norms, with those of each batch of 32,
and with statistics counted anew over the training images.
"""

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from fine_tuning import MODEL, RECIPE, ROWS, run_dir
from record import report

from selfdistill.data import ImageSet, load
from selfdistill.engine import checkpoint
from selfdistill.models import build

BATCH = 32


def batches(images: ImageSet) -> list[tuple[Tensor, Tensor]]:
    """The images in a fixed random order, without a last batch of fewer."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    pixels = images.fetch(order).float() / 255
    x = (pixels - RECIPE["mean"][0]) / RECIPE["std"][0]
    pairs = zip(x.split(BATCH), images.labels[order].split(BATCH), strict=True)
    return [pair for pair in pairs if len(pair[0]) == BATCH]


@torch.no_grad()
def accuracy(network: nn.Module, data: list[tuple[Tensor, Tensor]], training: bool) -> float:
    """In percent; a copy is evaluated, whose statistics may change."""
    network = copy.deepcopy(network).train(training)
    right = torch.cat([network(x).argmax(1) == y for x, y in data])
    return 100 * right.float().mean().item()


@torch.no_grad()
def recounted(network: nn.Module, data: list[tuple[Tensor, Tensor]]) -> nn.Module:
    """A copy whose statistics are means over the batches."""
    network = copy.deepcopy(network).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    for x, _ in data:
        network(x)
    return network


def line(row: str, seed: int, args: argparse.Namespace, parts: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run."""
    saved = checkpoint.newest(run_dir(row, seed, args.runs) / "checkpoints")
    assert saved is not None, f"{row} is not trained"
    network = ROWS[row][1](build(MODEL, num_classes=args.classes), args.classes)
    network.load_state_dict(saved.tensors["model"])
    anew = recounted(network, parts["train"])
    figures: dict[str, Any] = {"row": row, "seed": seed}
    for part, data in parts.items():
        figures[f"{part}_running"] = round(accuracy(network, data, False), 1)
        figures[f"{part}_batch"] = round(accuracy(network, data, True), 1)
        figures[f"{part}_recounted"] = round(accuracy(anew, data, False), 1)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="folder:clothing")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--limit", type=int, default=600, help="training images of the runs")
    parser.add_argument("--runs", type=Path, default=Path("runs/fine-tuning"))
    parser.add_argument("--rows", nargs="+", default=["linear", "linear, rate 10", "cut"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = load(args.data, image_size=RECIPE["image_size"], max_train_images=args.limit)
    assert images.val is not None
    parts = {"train": batches(images.train), "val": batches(images.val)}
    lines = [line(row, seed, args, parts) for row in args.rows for seed in args.seeds]
    report("fine-tuning-batch-statistics", lines, [])


if __name__ == "__main__":
    main()
