"""What quantization-aware training saves of what int8 costs, by who teaches.

    uv run python benchmarks/accuracy/quantization.py --data npz:cifar100.npz

`cifar100.npz` is CIFAR-100 in MedMNIST's layout. A network is trained in float32, then tuned from
there at a tenth of the rate, with and without int8 simulated, by labels, by its own float self
(`kd`) or by its own exits (`muse`). All arms of a seed begin with the same float32 weights; those
that are tuned see the same images equally often. Of each the accuracy on the test images is
measured as onnxruntime runs its file in float32 and in int8, the latter as `selfdistill export
--format onnx-int8` writes it, whatever it loses, and, where int8 was simulated, as the run itself
has it. A run that is there is not made again, one that was cut off goes on.
"""

import argparse
import statistics
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import report
from seeds import interval, trained

import selfdistill
from selfdistill.data import ImageData, InMemoryImages, load
from selfdistill.export.extract_predictor import learned_ranges
from selfdistill.export.int8_export import calibration_batches
from selfdistill.export.onnx_export import onnx_runner
from selfdistill.export.onnx_int8 import Int8Quantizer
from selfdistill.export.package import task_for
from selfdistill.export.verify import file_score

RECIPE: dict[str, Any] = {"precision": "fp32", "batch_size": 64, "num_workers": 0, "device": "cpu"}
FLOAT: dict[str, Any] = {"preset": "scratch", "method": "ce", "lr": 0.05, "warmup_epochs": 1.0}
TUNED: dict[str, Any] = {"preset": "finetune", "lr": 0.005, "warmup_epochs": 0.0}
ARMS: dict[str, dict[str, Any]] = {
    "float": {},
    "ce": {"method": "ce"},
    "kd": {"method": "kd"},
    "aware, ce": {"method": "ce", "quantize": "aware"},
    "aware, kd": {"method": "kd", "quantize": "aware"},
    "aware, muse": {"method": "muse", "quantize": "aware"},
}
"""Keys of a recipe of each arm; int8 is simulated in those that are called aware."""
PAIRS = [
    ("aware, ce", "ce"), ("aware, kd", "kd"), ("aware, kd", "aware, ce"),
    ("aware, muse", "aware, ce"), ("aware, ce", "float"), ("aware, kd", "float"),
]  # fmt: skip


class Scores(NamedTuple):
    """Test accuracy in percent: of the run, of its file in float32, and of that in int8."""

    run: float
    float32: float
    int8: float


def run_dir(model: str, arm: str, seed: int, runs: Path) -> Path:
    """Where a run of an arm lies."""
    return runs / model.replace("/", "-") / arm.replace(", ", "-") / f"s{seed}"


def scores(model: str, arm: str, seed: int, args: argparse.Namespace) -> Scores:
    """What a run scores, trained if it is not there yet, the float32 one of its seed before it."""
    data = few_images(args.data, args.limit, args.held_out)
    usual = RECIPE | {"model": model, "data": data, "seed": seed}
    out, origin = (run_dir(model, name, seed, args.runs) for name in (arm, "float"))
    if arm == "float":
        keys = FLOAT | {"epochs": args.epochs}
    else:
        keys = TUNED | {"epochs": args.tuning_epochs, "weights": str(origin)} | ARMS[arm]
        keys |= {"teacher": str(origin)} if keys["method"] == "kd" else {}
    trained(out, **usual, **keys, val_every_epochs=keys["epochs"])
    return file_scores(selfdistill.load(out, data=data))


@cache
def few_images(source: str, limit: int, held_out: int) -> ImageData:
    """The data with as many images as are asked for."""
    data = load(source, max_train_images=limit or None)
    if not held_out:
        return data
    parts: list[Any] = [data.val, data.test]
    first = [InMemoryImages(part.images[:held_out], part.labels[:held_out]) for part in parts]
    return replace(data, val=first[0], test=first[1])


def file_scores(run: selfdistill.Run) -> Scores:
    """The scores of a run and of its files, which are written beside it."""
    full, file = run.path / "export" / "student-onnx" / "model.onnx", run.path / "int8.onnx"
    if not full.exists():
        run.export(exit="student", format="onnx")
    data, task = run.data, task_for(run.data)
    assert data.val is not None
    assert data.test is not None
    ranges = learned_ranges(run.method, "student")
    Int8Quantizer(full, calibration_batches(data.val, data), ranges).write(file)
    both = [100 * file_score(onnx_runner(path), data.test, data, task) for path in (full, file)]
    return Scores(100 * (run.exits[-1].test_score or 0), *both)


def table(found: dict[tuple[str, str, int], Scores], args: argparse.Namespace) -> list[Any]:
    """A line for each network and arm, means over the seeds."""
    lines = []
    for model in args.networks:
        for arm in args.arms:
            rows = [found[model, arm, seed] for seed in args.seeds]
            line: dict[str, Any] = {"network": model, "row": arm, "n": len(rows)}
            for field in Scores._fields:
                values = [getattr(row, field) for row in rows]
                spread = round(statistics.stdev(values), 2) if len(values) > 1 else ""
                line |= {field: round(statistics.mean(values), 2), f"{field}_std": spread}
            line["int8_values"] = " ".join(f"{row.int8:.2f}" for row in rows)
            line["lost"] = round(statistics.mean(row.float32 - row.int8 for row in rows), 2)
            lines.append(line)
    return lines


def differences(found: dict[tuple[str, str, int], Scores], args: argparse.Namespace) -> list[Any]:
    """Paired by seed, of the files in int8, and of what int8 loses against the float32 file."""
    lines = []
    for model in args.networks if len(args.seeds) > 2 else []:
        for arm, base in PAIRS:
            if {arm, base} <= set(args.arms):
                rows = [(found[model, arm, s], found[model, base, s]) for s in args.seeds]
                about = {"network": model, "difference": f"{arm} - {base}, int8"}
                lines.append({**about, **interval([a.int8 - b.int8 for a, b in rows], 2)})
        for arm in args.arms:
            losses = [found[model, arm, s].int8 - found[model, arm, s].float32 for s in args.seeds]
            about = {"network": model, "difference": f"{arm}: int8 - float32"}
            lines.append({**about, **interval(losses, 2)})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="npz:cifar100.npz")
    networks = ["cifar/resnet8", "timm/mobilenetv3_small_050"]
    parser.add_argument("--networks", nargs="+", default=networks)
    parser.add_argument("--limit", type=int, default=3000, help="training images; 0 takes all")
    parser.add_argument("--held-out", type=int, default=2000, help="of each part; 0 takes all")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tuning-epochs", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/quantization"))
    parser.add_argument("--arms", nargs="+", default=[*ARMS], choices=[*ARMS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--name", default="accuracy-quantization", help="results/NAME.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for seed in args.seeds:
        for model in args.networks:
            scores(model, "float", seed, args)
            for arm in args.arms:
                found[model, arm, seed] = scores(model, arm, seed, args)
                print(model, arm, seed, found[model, arm, seed], flush=True)
    report(args.name, table(found, args), differences(found, args))


if __name__ == "__main__":
    main()
