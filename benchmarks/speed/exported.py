"""Latency of each exported exit beside that of the whole network, in onnxruntime.

    uv run python benchmarks/speed/exported.py --threads 1 2 --name speed-exported-resnet18

Weights are random, which changes no time. Every round runs each file once, so that whatever else
the machine does falls on all of them; a ratio is the median over the rounds of (exit ÷ whole
network in that round). Beside it stands the ratio of the multiply-adds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record

from selfdistill.costs.macs import network_cost
from selfdistill.export.extract_predictor import extract_predictor
from selfdistill.export.fuse_batchnorm import fuse_batchnorm
from selfdistill.export.normalized_input import NormalizedInput
from selfdistill.export.onnx_export import write_onnx
from selfdistill.models import build
from selfdistill.recipe.build_method import build_method
from selfdistill.tasks import Classification


def exported(
    bottleneck: str, args: argparse.Namespace, folder: Path
) -> dict[str, tuple[Path, int]]:
    """{predictor: (file, multiply-adds)}."""
    torch.manual_seed(0)
    example = torch.zeros(2, 3, args.size, args.size)
    network = build(args.model, num_classes=args.classes)
    task = Classification([str(i) for i in range(args.classes)], example)
    method = build_method("exits", network, task, "auto", {"bottleneck": bottleneck}).eval()
    found = {}
    for name, predictor in method.predictors().items():
        file = folder / f"{bottleneck}-{name}.onnx"
        flat = fuse_batchnorm(extract_predictor(method, name)).network
        write_onnx(NormalizedInput(flat, [0.5] * 3, [0.25] * 3).eval(), example, file)
        found[name] = file, network_cost(predictor, example).macs
    return found


def caller(file: Path, batch: int, threads: int, size: int) -> Callable[[], object]:
    """A function that runs the file once."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((batch, 3, size, size), dtype=np.float32)
    return lambda: session.run(None, {"images": images})


def seconds(call: Callable[[], object], repeats: int) -> float:
    """How long one call takes, the shortest of some in a row."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def measured(
    files: dict[str, tuple[Path, int]], batch: int, threads: int, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each predictor."""
    calls = {n: caller(file, batch, threads, args.size) for n, (file, _) in files.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(-args.warmup, args.rounds):
        for name, call in calls.items():
            spent = seconds(call, args.repeats)
            if round_ >= 0:
                times[name].append(spent)
    whole, macs = times["student"], files["student"][1]
    rows = []
    for name, mine in times.items():
        ratios = [a / b for a, b in zip(mine, whole, strict=True)]
        row = {
            "predictor": name,
            "batch": batch,
            "threads": threads,
            "ratio_median": round(statistics.median(ratios), 3),
            "ratio_of_minima": round(min(mine) / min(whole), 3),
            "macs_ratio": round(files[name][1] / macs, 3),
            "milliseconds_median": round(statistics.median(mine) * 1e3, 3),
        }
        rows.append(row)
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cifar/resnet18")
    parser.add_argument("--bottlenecks", nargs="+", default=["byot", "slim"])
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--name", required=True, help="results/NAME.csv")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(max(args.threads))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for bottleneck in args.bottlenecks:
            files = exported(bottleneck, args, Path(folder))
            for threads in args.threads:
                for batch in args.batches:
                    for row in measured(files, batch, threads, args):
                        about = {"model": args.model, "bottleneck": bottleneck}
                        rows.append({**about, **row, "rounds": args.rounds})
                        print(bottleneck, *row.values(), sep="\t", flush=True)
    rows = [{**row, "onnxruntime": onnxruntime.__version__} for row in rows]
    print(record(args.name, rows))


if __name__ == "__main__":
    main()
