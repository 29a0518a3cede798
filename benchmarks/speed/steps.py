"""One training step of each method against plain cross-entropy, interleaved in one process.

    uv run python benchmarks/speed/steps.py --model cifar/resnet18 --batch 64 --rounds 7

Every round runs each case once, so that whatever else the machine does falls on all of them; a
ratio is the median over the rounds of (case ÷ plain step of the same arithmetic in that round).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record

from selfdistill.core import METHODS, Batch, Progress
from selfdistill.models import build
from selfdistill.recipe.making import make_method
from selfdistill.recipe.options import check_options
from selfdistill.tasks import Classification

CASES = {
    "ce": ("ce", {}),
    "exits": ("exits", {}),
    "byot": ("byot", {}),
    "muse separable": ("muse", {}),
    "muse separable, mul": ("muse", {"combine": "mul"}),
    "muse separable, roll": ("muse", {"negatives": "roll"}),
    "muse concat": ("muse", {"critic": "concat"}),
    "muse concat, byot head": ("muse", {"critic": "concat", "bottleneck": "byot"}),
}


def make_case(
    name: str, options: dict[str, object], args: argparse.Namespace, bf16: bool
) -> Callable[[], float]:
    """A function that runs one optimiser step and says how long it took, in seconds."""
    device = torch.device(args.device)
    torch.manual_seed(0)
    task = Classification([str(i) for i in range(100)], torch.zeros(2, 3, args.size, args.size))
    network = build(args.model, num_classes=100)
    method = make_method(name, network, task, "auto", check_options(METHODS[name], name, options))
    images = torch.randn(args.batch, 3, args.size, args.size)
    if bf16:
        method.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    method.to(device)
    if args.compile:
        method.compile()
    labels = torch.randint(0, 100, (args.batch,))
    batch = Batch(images.to(device), labels.to(device), torch.arange(args.batch, device=device))
    optimiser = torch.optim.SGD(method.parameters(), lr=1e-3, momentum=0.9)
    zero = torch.zeros((), dtype=torch.int64, device=device)
    count = 0

    def run() -> float:
        nonlocal count
        count += 1
        _wait(device)
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            step = method(batch, Progress(zero, zero, zero + count, zero + 1000))
        step.total.backward()
        optimiser.step()
        optimiser.zero_grad()
        _wait(device)
        return time.perf_counter() - start

    return run


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cifar/resnet18")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--arithmetic", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--name", required=True, help="results/NAME.csv")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keys = [(arithmetic, case) for arithmetic in args.arithmetic for case in args.cases]
    runs = {key: make_case(*CASES[key[1]], args, key[0] == "bf16") for key in keys}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in keys}
    for round_ in range(-args.warmup, args.rounds):
        for key, run in runs.items():
            spent = run()
            if round_ >= 0:
                times[key].append(spent)
    rows = []
    for arithmetic, case in keys:
        plain, mine = times[arithmetic, "ce"], times[arithmetic, case]
        ratios = [a / b for a, b in zip(mine, plain, strict=True)]
        row = {
            "model": args.model,
            "batch": args.batch,
            "arithmetic": arithmetic + (" channels_last" if arithmetic == "bf16" else ""),
            "compile": args.compile,
            "case": case,
            "ratio_median": round(statistics.median(ratios), 3),
            "ratio_of_minima": round(min(mine) / min(plain), 3),
            "milliseconds_median": round(statistics.median(mine) * 1e3, 2),
            "rounds": args.rounds,
        }
        rows.append(row)
        print(
            *[row[k] for k in ("arithmetic", "case", "ratio_median", "ratio_of_minima")], sep="\t"
        )
    print(record(args.name, rows))


if __name__ == "__main__":
    main()
