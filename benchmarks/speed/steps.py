"""One training step of each method against plain cross-entropy, interleaved in one process.

    uv run python benchmarks/speed/steps.py --model cifar/resnet18 --batch 64 --rounds 7 --name x

Every round runs each case once, so that whatever else the machine does falls on all of them; a
ratio is the median over the rounds of (case ÷ plain step of the same arithmetic in that round), or,
`ratio_to_first`, ÷ the plain step of the first arithmetic.
Beside it stands the ratio of the multiply-adds that the step makes (forward and backward, counted
by torch), which time cannot fall below by much.
"""

import argparse
import inspect
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record

from selfdistill.core import METHODS, Batch, ConfigError, Method, Progress
from selfdistill.core.memory_format import module_to_channels_last
from selfdistill.models import build
from selfdistill.recipe.build_method import build_method
from selfdistill.recipe.options import check_options
from selfdistill.tasks import TASKS, make_task

_BOXES = 8  # an image
IMAGES = 50_000  # of the training set that memories are made for
ARITHMETIC = {
    "fp32": "fp32",
    "channels_last": "fp32 channels_last",
    "bf16": "bf16 channels_last",
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ce": ("ce", {}),
    "muse separable": ("muse", {}),
    "muse separable, mul": ("muse", {"combine": "mul"}),
    "muse separable, roll": ("muse", {"negatives": "roll"}),
    "muse concat": ("muse", {"critic": "concat"}),
    "muse concat, byot head": ("muse", {"critic": "concat", "bottleneck": "byot"}),
    "srrl joint": ("srrl", {"open_set": "joint"}),
    "residual-kd joint": ("residual-kd", {"schedule": "joint"}),
} | {name: (name, {}) for name in METHODS if name not in ("ce", "muse")}


def make(name: str, options: dict[str, Any], args: argparse.Namespace, arithmetic: str) -> Method:
    """The method with all that it is to be given."""
    torch.manual_seed(0)
    classes = [str(i) for i in range(args.classes)]
    task = make_task(args.task, classes, (3, args.size, args.size))
    takes = inspect.signature(METHODS[name]).parameters
    companions: dict[str, Any] = {}
    if "teacher" in takes:
        teacher = build(args.teacher, num_classes=args.classes)
        if heads := METHODS[name].teacher_method:  # what trained it is what teaches
            teacher = build_method(heads, teacher, task, "auto", {"backbone": "joint"})
        companions["teacher"] = teacher
    if "peers" in takes:
        companions["peers"] = [build(args.model, num_classes=args.classes)]
    if "train_labels" in takes:
        companions["train_labels"] = torch.arange(IMAGES) % args.classes
    network = build(args.model, num_classes=args.classes)
    method = build_method(name, network, task, "auto", check_options(name, options), **companions)
    if arithmetic != "fp32":
        module_to_channels_last(method)
    method.to(args.device)
    if args.compile:
        method.compile()
    return method


def make_batch(method: Method, args: argparse.Namespace, arithmetic: str) -> Batch:
    """Random images, as many views and partners as the method needs."""

    def images() -> torch.Tensor:
        drawn = torch.randn(args.batch, 3, args.size, args.size)
        form = torch.contiguous_format if arithmetic == "fp32" else torch.channels_last
        return drawn.contiguous(memory_format=form).to(args.device)

    index = torch.arange(args.batch, device=args.device)
    views = tuple(images() for _ in range(method.needs.views - 1))
    partners = images() if method.needs.same_class else None
    extra = images() if method.needs.extra and not method.needs.unlabeled else None
    return Batch(images(), targets(args).to(args.device), index, views, partners, extra=extra)


def targets(args: argparse.Namespace) -> torch.Tensor:
    """Labels, masks, or eight boxes an image, at random."""
    shape = {"segmentation": (args.size, args.size), "detection": (_BOXES, 1)}.get(args.task, ())
    labels = torch.randint(args.classes, (args.batch, *shape))
    if args.task != "detection":
        return labels
    corner, side = args.size * torch.rand(2, args.batch, _BOXES, 2) / 2
    return torch.cat([labels, corner, corner + side + 1], 2)


def stepper(
    name: str, options: dict[str, Any], args: argparse.Namespace, arithmetic: str
) -> Callable[[], None]:
    """A function that runs one optimizer step."""
    device = torch.device(args.device)
    method = make(name, options, args, arithmetic)
    batch = make_batch(method, args, arithmetic)
    optimizer = torch.optim.SGD(method.param_groups(), lr=1e-3, momentum=0.9)
    zero = torch.zeros((), dtype=torch.int64, device=device)
    count = 0

    def run() -> None:
        nonlocal count
        progress = Progress(zero, zero, zero + count, zero + 1000)
        with torch.autocast(device.type, torch.bfloat16, enabled=arithmetic == "bf16"):
            step = method(batch, progress)
        step.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(progress)
        count += 1

    return run


def seconds(run: Callable[[], None], device: str) -> float:
    """How long one call takes."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _backward(grad: Any, x: Any, weight: Any, *rest: Any, **more: Any) -> int:
    """Of a convolution's backward pass; torch's own count takes a grouped one for a dense one."""
    once = 2 * math.prod(grad) * math.prod(weight[1:])
    return int(once * sum(rest[-1][:2]))  # for the input, for the weight


def flops(run: Callable[[], None]) -> int:
    """Of one step, forward and backward."""
    counts = {torch.ops.aten.convolution_backward: _backward}
    with FlopCounterMode(display=False, custom_mapping=counts) as counter:
        run()
    return int(counter.get_total_flops())


def served(cases: list[str], args: argparse.Namespace) -> list[str]:
    """The cases that go with the task and the network."""
    good = []
    for case in cases:
        try:
            make(*CASES[case], args, "fp32")
        except ConfigError as error:
            print(f"left out {case}: {error}")
        else:
            good.append(case)
    return good


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cifar/resnet18")
    parser.add_argument("--teacher", default="cifar/resnet34")
    parser.add_argument("--task", default="classification", choices=list(TASKS))
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--arithmetic", nargs="+", default=list(ARITHMETIC), choices=ARITHMETIC)
    parser.add_argument("--cases", nargs="+", help="all that go with task and network by default")
    parser.add_argument("--name", required=True, help="results/NAME.csv")
    return parser.parse_args()


def _ratio(mine: list[float], other: list[float]) -> float:
    """The median of what is the ratio in each round."""
    return round(statistics.median(a / b for a, b in zip(mine, other, strict=True)), 3)


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    args.cases = args.cases or served(list(CASES), args)
    keys = [(arithmetic, case) for arithmetic in args.arithmetic for case in args.cases]
    runs = {key: stepper(*CASES[key[1]], args, key[0]) for key in keys}
    counted = {key: flops(run) for key, run in runs.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in keys}
    for round_ in range(-args.warmup, args.rounds):
        for key, run in runs.items():
            spent = seconds(run, args.device)
            if round_ >= 0:
                times[key].append(spent)
    rows = []
    for arithmetic, case in keys:
        plain, mine = times[arithmetic, "ce"], times[arithmetic, case]
        row = {
            "model": args.model,
            "teacher": args.teacher if METHODS[CASES[case][0]].kind == "offline" else "",
            "batch": args.batch,
            "arithmetic": ARITHMETIC[arithmetic],
            "compile": args.compile,
            "case": case,
            "ratio_median": _ratio(mine, plain),
            "ratio_to_first": _ratio(mine, times[args.arithmetic[0], "ce"]),
            "ratio_of_minima": round(min(mine) / min(plain), 3),
            "flops_ratio": round(counted[arithmetic, case] / counted[arithmetic, "ce"], 3),
            "milliseconds_median": round(statistics.median(mine) * 1e3, 2),
            "rounds": args.rounds,
        }
        rows.append(row)
        shown = ("arithmetic", "case", "ratio_median", "flops_ratio")
        print(*[row[k] for k in shown], sep="\t")
    print(record(args.name, rows))


if __name__ == "__main__":
    main()
