"""Step time with a teacher that runs, and with one whose outputs are kept; what keeping them costs.

    uv run python benchmarks/speed/teacher_cache.py --name speed-teacher-cache
    uv run python benchmarks/speed/teacher_cache.py --data cifar100 --teacher RUN --name …

Epochs of four cases are interleaved, so that whatever else the machine does falls on all of them:
`plain` training, kd with a `live` teacher, with a store that is filled in this epoch (`first`), and
with one that is full (`kept`). A step's time is that of an epoch, loading, opening, writing and
reading included, over its steps; ratios are medians over the rounds of (case ÷ plain in that
round). Without --data the images are random, which changes no time.

With --teacher, a trained one, the gap is measured that keeping a part of each output makes: that of
the soft loss and of its gradient, relative, on one epoch's views, for a student at its start.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record

from selfdistill.core import Batch, Method, Progress
from selfdistill.data import ImageData, InMemoryImages
from selfdistill.engine.protocols import Batches
from selfdistill.functional.divergence import kl_divergence
from selfdistill.models import build
from selfdistill.recipe.build_run import RunComponents, RunInput, build_run, load_data
from selfdistill.recipe.loaders import train_loader
from selfdistill.recipe.schema import parse
from selfdistill.recipe.teacher_cache import with_teacher_cache
from selfdistill.teacher_cache import OutputEncoding


def components(method: str, data: ImageData, args: argparse.Namespace) -> RunComponents:
    """Networks and method of a run whose views come again in every epoch."""
    keys = {"method": method, "model": args.model, "batch_size": args.batch, "data": args.data}
    keys |= {"cache_views": 1, "cache_dir": str(args.folder), "device": args.device}
    keys |= {"cache_classes": args.classes_kept, "cache_precision": args.precision_kept}
    teacher = None
    if method == "kd" and args.teacher:
        keys["teacher"] = args.teacher
    elif method == "kd":
        torch.manual_seed(0)
        shape = data.train.shape
        teacher = build(args.teacher_model, num_classes=len(data.classes), in_channels=shape[0])
    given = {key: value for key, value in keys.items() if value not in (None, "")}
    return build_run(parse(given), RunInput(data), teacher=teacher)


def make_data(args: argparse.Namespace) -> ImageData:
    if args.data:
        recipe = parse({"data": args.data, "data_root": args.data_root})
        data = load_data(recipe)
        index = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
        return replace(data, train=data.train.take(index[: args.images]))
    shape = (args.images, 3, args.size, args.size)
    images = InMemoryImages(
        torch.randint(256, shape, dtype=torch.uint8), torch.arange(args.images) % args.classes
    )
    moments = ((0.5,) * 3, (0.25,) * 3)
    classes = [str(i) for i in range(args.classes)]
    return ImageData("random", images, None, None, classes, *moments, 4, True, False)


def stepper(method: Method, device: str) -> Callable[[Batch], None]:
    """A function that takes one optimizer step."""
    optimizer = torch.optim.SGD(method.param_groups(), lr=1e-3, momentum=0.9)
    zero = torch.zeros((), dtype=torch.int64, device=device)
    progress = Progress(zero, zero, zero, zero + 1000)

    def step(batch: Batch) -> None:
        method(batch, progress).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def epoch_seconds(batches: Batches, step: Callable[[Batch], None], device: str) -> float:
    """Seconds an optimizer step, of all that an epoch takes."""
    start = time.perf_counter()
    for (batch,) in batches.epoch(0):
        step(batch)
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / batches.steps_per_epoch


def time_cases(data: ImageData, args: argparse.Namespace) -> list[dict[str, Any]]:
    fabric = Fabric(accelerator=args.device, devices=1)
    runs = {name: components(name, data, args) for name in ("ce", "kd")}
    loaders = {
        name: train_loader(run.recipe, run.data, run.method.to(fabric.device).train(), fabric)
        for name, run in runs.items()
    }
    steps = {name: stepper(run.method, args.device) for name, run in runs.items()}
    kept, _ = with_teacher_cache(loaders["kd"], runs["kd"], fabric)
    cases = {"plain": "ce", "live": "kd", "first": "kd", "kept": "kd"}
    times: dict[str, list[float]] = {case: [] for case in cases}
    for round_ in range(-args.warmup, args.rounds):
        for case, method in cases.items():
            if case == "first":
                shutil.rmtree(args.folder)
                kept, _ = with_teacher_cache(loaders["kd"], runs["kd"], fabric)
            batches = kept if case in ("first", "kept") else loaders[method]
            spent = epoch_seconds(batches, steps[method], args.device)
            if round_ >= 0:
                times[case].append(spent)
    stored = sum(path.stat().st_size for path in args.folder.glob("*/*.safetensors"))
    rows = []
    for case, mine in times.items():
        ratios = [a / b for a, b in zip(mine, times["plain"], strict=True)]
        rows.append(
            {
                "part": "step",
                "case": case,
                "ratio_median": round(statistics.median(ratios), 3),
                "ratio_of_minima": round(min(mine) / min(times["plain"]), 3),
                "milliseconds_median": round(statistics.median(mine) * 1e3, 2),
                "rounds": args.rounds,
                "bytes_per_output": round(stored / len(data.train), 1) if case == "kept" else "",
                "loss_gap": "",
                "gradient_gap": "",
            }
        )
    return rows


def logits(run: RunComponents, args: argparse.Namespace) -> Iterator[tuple[Tensor, Tensor]]:
    """Student's and teacher's logits of one epoch's views."""
    fabric = Fabric(accelerator=args.device, devices=1)
    method = run.method.to(fabric.device).eval()
    with torch.no_grad():
        for (batch,) in train_loader(run.recipe, run.data, method, fabric).epoch(0):
            yield method.student(batch.inputs), method.teacher(batch.inputs)  # type: ignore[operator]


def gaps(data: ImageData, args: argparse.Namespace) -> list[dict[str, Any]]:
    """What each way to keep less changes of the soft loss and of its gradient at the logits."""
    pairs = list(logits(components("kd", data, args), args))
    student, teacher = (torch.cat(side).float() for side in zip(*pairs, strict=True))
    classes = teacher.shape[1]

    def soft(reference: Tensor, tau: float) -> tuple[float, Tensor]:
        leaf = student.clone().requires_grad_()
        loss = kl_divergence(leaf, reference, tau)
        loss.backward()
        assert leaf.grad is not None
        return float(loss.detach()), leaf.grad

    rows = []
    for kept in [k for k in args.kept if k < classes] + [classes]:
        for precision in ("fp32", "fp16"):
            for tau in args.temperatures:
                encoding = OutputEncoding(classes, kept, precision, args.cache_temperature)
                want, want_grad = soft(teacher, tau)
                loss, grad = soft(encoding.decode(encoding.encode(teacher)), tau)
                case = f"top {kept} of {classes}, {precision}, spread at {encoding.temperature:g}"
                gradient_gap = float((grad - want_grad).norm() / want_grad.norm())
                rows.append(
                    {
                        "part": "gap",
                        "case": f"{case}, learned at {tau:g}",
                        "ratio_median": "",
                        "ratio_of_minima": "",
                        "milliseconds_median": "",
                        "rounds": "",
                        "bytes_per_output": encoding.num_bytes() + 4,
                        "loss_gap": f"{abs(loss - want) / want:.2e}",
                        "gradient_gap": f"{gradient_gap:.2e}",
                    }
                )
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cifar/resnet18")
    parser.add_argument("--teacher-model", default="cifar/resnet34")
    parser.add_argument("--data", default="", help="random images by default")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--teacher", default="", help="a trained one; its size must be the data's")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=100, help="of random images")
    parser.add_argument("--size", type=int, default=32, help="of random images")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--classes-kept", type=int, help="in the timed store; all by default")
    parser.add_argument("--precision-kept", default="fp32", choices=["fp32", "fp16"])
    parser.add_argument("--kept", type=int, nargs="+", default=[8, 16, 20, 28])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--cache-temperature", type=float, default=4.0)
    parser.add_argument("--name", required=True, help="results/NAME.csv")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    data = make_data(args)
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder) / "cache"
        rows = time_cases(data, args)
    if args.teacher:
        args.folder = Path(folder)
        rows += gaps(data, args)
    settings = {"model": args.model, "teacher": args.teacher or args.teacher_model}
    settings |= {"data": args.data or "random", "images": len(data.train), "batch": args.batch}
    rows = [settings | row for row in rows]
    for row in rows:
        print(row["case"], row["ratio_median"], row["bytes_per_output"], row["loss_gap"], sep="\t")
    print(record(args.name, rows))


if __name__ == "__main__":
    main()
