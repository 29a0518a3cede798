"""Anytime inference on CIFAR-100: accuracy against mean multiply-adds, over seeds.

    uv run python benchmarks/accuracy/anytime.py --data npz:cifar100.npz

Reads the runs that `cifar100_small.py` trained. Thresholds are chosen on each run's 5,000
validation images for an allowed loss of 0, 0.5, 1 and 2 points; accuracies and multiply-adds are of
the 10,000 test images, in fp32. Beside them stands every exit by itself, without any threshold.
A second result times one run by single images, in torch and in onnxruntime: the ratio to the
student alone, in turns with it, as one thread's own time.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from onnxruntime import InferenceSession, SessionOptions

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record

import selfdistill
from selfdistill.data import ImageData
from selfdistill.early_exit.network import EarlyExitNetwork, build_early_exit_network
from selfdistill.early_exit.onnx_export import write_early_exit_onnx
from selfdistill.early_exit.threshold_table import (
    HeldOutDecisions,
    calibrated_row,
    held_out_decisions,
    threshold_row,
    with_latencies,
)
from selfdistill.export.normalized_input import NormalizedInput
from selfdistill.export.onnx_export import write_onnx
from selfdistill.recipe.build_run import load_data
from selfdistill.runs.paths import load_recipe

LOSSES = (0.0, 0.005, 0.01, 0.02)


def load(place: Path, args: argparse.Namespace) -> tuple[selfdistill.Run, ImageData]:
    """A run, and its data where they lie here."""
    data = load_data(load_recipe(place).model_copy(update={"data": args.data}))
    return selfdistill.load(place, data=data), data


def row(evaluated: HeldOutDecisions, max_loss: float) -> dict[str, float]:
    """What one run's calibrated thresholds come to, in percent."""
    alone, found = (
        threshold_row(evaluated, (None,) * len(evaluated.exits)),
        calibrated_row(evaluated, max_loss),
    )
    shares = zip((*evaluated.exits, "student"), found.reported.shares, strict=True)
    return {
        "accuracy": 100 * found.reported.accuracy,
        "change": 100 * (found.reported.accuracy - alone.reported.accuracy),
        "val_change": 100 * (found.outcomes["val"].accuracy - alone.outcomes["val"].accuracy),
        "macs": 100 * found.reported.macs / alone.reported.macs,
    } | {f"share_{name}": 100 * share for name, share in shares}


def single(evaluated: HeldOutDecisions, k: int) -> dict[str, float]:
    """The same of one exit that takes all images; the last is the student."""
    right = {name: decisions.correct for name, decisions in evaluated.splits.items()}
    change = {name: 100 * (r[:, k].mean() - r[:, -1].mean()) for name, r in right.items()}
    spent = evaluated.costs.trunk[k] + (*evaluated.costs.heads, 0)[k]
    return {
        "accuracy": 100 * right["test"][:, k].mean(),
        "change": change["test"],
        "val_change": change["val"],
        "macs": 100 * spent / evaluated.costs.trunk[-1],
    } | {f"share_{n}": 100.0 * (i == k) for i, n in enumerate((*evaluated.exits, "student"))}


def summary(method: str, choice: str, runs: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds."""
    line: dict[str, Any] = {"method": method, "choice": choice, "n": len(runs)}
    for key in runs[0]:
        values = [run[key] for run in runs]
        line[key] = f"{statistics.mean(values):.2f}"
        if not key.startswith("share"):
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            line[f"{key}_std"] = f"{spread:.2f}"
    return line


def seconds(ways: Sequence[Callable[[Any], object]], images: list[Any]) -> list[float]:
    """Mean time of an image on each of some ways, in turns; of each image the best of three."""
    totals = [0.0] * len(ways)
    for image in images:
        took: list[list[float]] = [[] for _ in ways]
        for _ in range(3):
            for way, times in zip(ways, took, strict=True):
                start = time.thread_time()
                way(image)
                times.append(time.thread_time() - start)
        totals = [total + min(times) for total, times in zip(totals, took, strict=True)]
    return [total / len(images) for total in totals]


def _run(session: Any, image: Any) -> object:
    return session.run(None, {"images": image})


def in_onnxruntime(network: EarlyExitNetwork, run: selfdistill.Run, data: ImageData) -> list[float]:
    """Seconds of an image in the anytime file and in the student's."""
    shape, options = data.train.shape, SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("anytime.onnx", "student.onnx")]
        write_early_exit_onnx(network, data.mean, data.std, shape, files[0])
        student = NormalizedInput(run.network, data.mean, data.std).eval()
        write_onnx(student, torch.zeros(2, *shape), files[1])
        sessions = [
            InferenceSession(file, options, providers=["CPUExecutionProvider"]) for file in files
        ]
        test = data.test
        assert test, "the student is timed on test images"
        pixels = test.fetch(torch.arange(1000)).float() / 255
        ways = [partial(_run, session) for session in sessions]
        return seconds(ways, [image[None].numpy() for image in pixels])


def latency(method: str, place: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The time of single images of one run, against the student's."""
    run, data = load(place, args)
    found = held_out_decisions(run.method, data)
    rows = [
        threshold_row(found, (None,) * len(found.exits)),
        *(calibrated_row(found, x) for x in LOSSES[1:]),
    ]
    alone, *rows = with_latencies(rows, run.method, data, seconds=60.0)
    lines = []
    for chosen in rows:
        assert chosen.seconds
        assert alone.seconds
        assert chosen.max_loss is not None
        network = build_early_exit_network(run.method, chosen.thresholds)
        whole = found.costs.trunk[-1]
        times = {
            "torch": (chosen.seconds, alone.seconds),
            "onnxruntime": in_onnxruntime(network, run, data),
        }
        for runtime, (mine, students) in times.items():
            lines.append(
                {
                    "method": method,
                    "max_loss": 100 * chosen.max_loss,
                    "runtime": runtime,
                    "macs_ratio": f"{chosen.reported.macs / whole:.3f}",
                    "latency_ms": f"{1000 * mine:.3f}",
                    "student_ms": f"{1000 * students:.3f}",
                    "latency_ratio": f"{mine / students:.3f}",
                }
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="npz:cifar100.npz")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar100-small"))
    parser.add_argument("--methods", nargs="+", default=["exits", "byot", "muse-add", "muse-mul"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", nargs="+", default=["accuracy", "latency"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if "accuracy" in args.parts:
        show("anytime-cifar100-small", accuracy(args))
    if "latency" in args.parts:
        place = args.runs / args.methods[0] / f"s{args.seeds[0]}"
        show("anytime-latency", latency(args.methods[0], place, args))


def accuracy(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All exits alone and all allowed losses, of each method over its seeds."""
    lines = []
    for method in args.methods:
        found = []
        for seed in args.seeds:
            print(f"{method}, seed {seed} …", flush=True)
            run, data = load(args.runs / method / f"s{seed}", args)
            found.append(held_out_decisions(run.method, data))
        for k, name in enumerate((*found[0].exits, "student")):
            lines.append(summary(method, f"{name} alone", [single(each, k) for each in found]))
        for loss in LOSSES:
            name = f"loss {100 * loss:g}"
            lines.append(summary(method, name, [row(each, loss) for each in found]))
    return lines


def show(name: str, lines: list[dict[str, Any]]) -> None:
    """On the screen and in results/."""
    for line in lines:
        print(*line.values(), sep="\t")
    print(record(name, lines))


if __name__ == "__main__":
    main()
