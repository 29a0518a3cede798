"""A plain training step with channels last over that in the usual memory format.

    uv run python benchmarks/speed/memory_format.py --rounds 15

Networks of several kinds at batches that a processor trains with, fp32, forward and backward, both
formats in turns; the ratio is the median over the rounds.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record
from steps import seconds

from selfdistill.core.memory_format import channels_last, module_to_channels_last
from selfdistill.models import build

CASES = [
    ("cifar/resnet10_w16", 64, 32),
    ("cifar/resnet8", 64, 32),
    ("cifar/resnet18", 16, 32),
    ("cifar/resnet18", 64, 32),
    ("cifar/mobilenet_v2", 32, 32),
    ("timm/mobilenetv3_small_050", 16, 96),
    ("timm/efficientnet_lite0", 8, 128),
    ("timm/convnext_atto", 8, 96),
    ("timm/resnet18", 8, 128),
    ("timm/resnet50", 4, 160),
]
CLASSES = 100


def stepper(name: str, batch: int, size: int, *, last: bool) -> Callable[[], None]:
    """A function that runs one forward and backward pass."""
    torch.manual_seed(0)
    network = build(name, num_classes=CLASSES).train()
    images, labels = torch.randn(batch, 3, size, size), torch.randint(CLASSES, (batch,))
    if last:
        module_to_channels_last(network)
        images = channels_last(images)

    def run() -> None:
        F.cross_entropy(network(images), labels).backward()
        network.zero_grad()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="speed-memory-format", help="results/NAME.csv")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name, batch, size in CASES:
        runs = [stepper(name, batch, size, last=last) for last in (False, True)]
        times = [[seconds(run, "cpu") for run in runs] for _ in range(args.warmup + args.rounds)]
        ratios = [last / first for first, last in times[args.warmup :]]
        row = {"network": name, "batch": batch, "size": size, "rounds": args.rounds}
        row["ratio"] = round(statistics.median(ratios), 3)
        rows.append(row)
        print(*row.values(), sep="\t")
    print(record(args.name, rows))


if __name__ == "__main__":
    main()
