"""Int8 beside float32 in onnxruntime: score, latency and bytes of trained networks.

    uv run python benchmarks/speed/int8.py --name speed-int8 --data cifar10 --epochs 30 \
        --models cifar/resnet18 timm/mobilenetv2_100 --threads 1

Each network is trained by `ce`, exported as ONNX, and quantized as `export` does it, but nothing is
refused. Both files are scored on all test images and timed in turns; a ratio is the median over the
turns of (int8 ÷ float32 in that turn).
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record

import selfdistill
from selfdistill.costs.latency import interleaved_times
from selfdistill.export.int8_export import calibration_batches
from selfdistill.export.onnx_export import onnx_runner, onnx_session
from selfdistill.export.onnx_int8 import Int8Quantizer
from selfdistill.export.package import task_for
from selfdistill.export.verify import file_score


def rows(model: str, args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each batch size and number of threads."""
    run = selfdistill.train(
        **{"method": "ce", "model": model, "data": args.data, "epochs": args.epochs},
        **{"max_train_images": args.max_train_images, "seed": args.seed, "device": args.device},
        out=folder / "run",
    )
    file = run.export(exit="student", out=folder / "float32").file
    data, task = run.data, task_for(run.data)
    assert data.val is not None
    assert data.test is not None
    batches = calibration_batches(data.val, data)
    quantizer, quantized = Int8Quantizer(file, batches), folder / "int8.onnx"
    quantizer.write(quantized)
    files = {"float32": file, "int8": quantized}
    scores = {n: file_score(onnx_runner(f), data.test, data, task) for n, f in files.items()}
    about = {
        "model": model,
        "data": args.data,
        "epochs": args.epochs,
        "seed": args.seed,
        "test_images": len(data.test),
        "metric": task.primary_metric,
        **{f"{name}_score": round(score, 5) for name, score in scores.items()},
        **{f"{name}_bytes": path.stat().st_size for name, path in files.items()},
        "layers": len(quantizer.layers),
        "calibration_images": sum(map(len, batches)),
    }
    for threads in args.threads:
        for batch in args.batches:
            yield about | _latency(files, batches[0], batch, threads, args)


def _latency(
    files: dict[str, Path],
    images: np.ndarray,
    batch: int,
    threads: int,
    args: argparse.Namespace,
) -> dict[str, Any]:
    inputs = {"images": np.resize(images, (batch, *images.shape[1:]))}
    calls = {n: partial(onnx_session(f, threads).run, None, inputs) for n, f in files.items()}
    times = interleaved_times(calls, seconds=args.seconds, max_rounds=args.rounds)
    ratios = [a / b for a, b in zip(times["int8"], times["float32"], strict=True)]
    return {
        "batch": batch,
        "threads": threads,
        "ratio_median": round(statistics.median(ratios), 3),
        **{f"{n}_milliseconds": round(statistics.median(t) * 1e3, 3) for n, t in times.items()},
        "rounds": len(ratios),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["cifar/resnet18", "timm/mobilenetv2_100"])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--max-train-images", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--name", required=True, help="results/NAME.csv")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(max(args.threads))
    found = []
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            for row in rows(model, args, Path(folder)):
                found.append({**row, "onnxruntime": onnxruntime.__version__})
                print(*row.values(), sep="\t", flush=True)
    print(record(args.name, found))


if __name__ == "__main__":
    main()
