"""Our training step beside that of public code, interleaved in one process.

    git clone https://github.com/luanyunteng/pytorch-be-your-own-teacher byot
    git clone https://github.com/MingiJi/FRSKD frskd
    git clone https://github.com/winycg/Self-KD-Lib mixskd
    git clone https://github.com/HobbitLong/RepDistiller repdistiller
    git clone https://github.com/yoshitomo-matsubara/torchdistill torchdistill
    uv run python benchmarks/speed/public.py --byot byot --frskd frskd/classification \
        --mixskd mixskd --repdistiller repdistiller --torchdistill torchdistill

The public steps are in `public_steps.py`. All are in fp32, as the scripts are; ours besides as
`--precision auto` and the memory format of its default have it on this machine, at our weights of
the terms. A ratio is the median over the rounds; "plain" is our step of cross-entropy in fp32. A
host's read is a number that the host takes from a tensor, for which it would wait on a GPU. Saved
is what the forward pass keeps for the backward one, each storage once.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import public_steps
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from public_steps import BATCH, CLASSES, Loss
from record import record
from steps import seconds, stepper

from selfdistill.core.machine import has_fast_bfloat16

AUTO = "bf16" if has_fast_bfloat16("cpu") else "channels_last"
REPOSITORIES = ("byot", "frskd", "mixskd", "repdistiller", "torchdistill")
Step = Callable[[], None]


def public(args: argparse.Namespace) -> dict[tuple[str, str], Callable[[], Any]]:
    """What makes the networks and the loss of each step, by the code and our name of the method."""
    kinds = {name: partial(public_steps.repdistiller, args.repdistiller, name)
             for name in ("kd", "at", "crd")}  # fmt: skip
    return {
        ("pytorch-be-your-own-teacher", "byot"): partial(public_steps.byot, args.byot),
        ("FRSKD", "frskd"): partial(public_steps.frskd, args.frskd),
        ("Self-KD-Lib", "mixskd"): partial(public_steps.mixskd, args.mixskd),
        **{("RepDistiller", name): make for name, make in kinds.items()},
        ("torchdistill", "kd"): partial(public_steps.torchdistill, args.torchdistill),
        ("timm", "kd"): public_steps.timm_task,
    }


def optimized(parts: nn.Module, loss: Loss) -> Step:
    """A function that runs one optimizer step."""
    optimizer = torch.optim.SGD(parts.parameters(), lr=1e-3, momentum=0.9)
    parts.train()

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """The repositories say `.cuda()`; let it do nothing."""
    with (
        patch.object(nn.Module, "cuda", lambda self: self),
        patch.object(Tensor, "cuda", lambda self: self),
    ):
        yield


class HostReads(TorchDispatchMode):
    """Counts what would make a host wait for its GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "unique")
        self.count += any(wait in str(func) for wait in waits)
        return func(*args, **(kwargs or {}))


def examined(run: Step) -> dict[str, float]:
    """The host's reads in a step, and MiB that are saved for its backward pass."""
    with HostReads() as reads:
        run()
    sizes: dict[int, int] = {}

    def saved(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(saved, lambda tensor: tensor):
        run()
    return {"reads": reads.count, "mib": round(sum(sizes.values()) / 2**20, 1)}


def steps(args: argparse.Namespace) -> dict[tuple[str, ...], Step]:
    """Every step: ours by arithmetic and method, public ones by code and method."""
    ours = argparse.Namespace(
        model="cifar/resnet18", teacher="cifar/resnet34", task="classification", classes=CLASSES,
        batch=BATCH, size=32, device="cpu", compile=False,
    )  # fmt: skip
    makers = public(args)
    methods = dict.fromkeys(("ce", *(method for _, method in makers)))
    runs: dict[tuple[str, ...], Step] = {
        (kind, method): stepper(method, {}, ours, arithmetic)
        for kind, arithmetic in (("ours", "fp32"), ("auto", AUTO))
        for method in methods
    }
    return runs | {key: optimized(*make()) for key, make in makers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in REPOSITORIES:
        parser.add_argument(f"--{name}", type=Path, required=True, help="its repository")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="speed-public-resnet18", help="results/NAME.csv")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with on_the_cpu():
        runs = steps(args)
        found = {key: examined(run) for key, run in runs.items()}
        times: dict[tuple[str, ...], list[float]] = {key: [] for key in runs}
        for round_ in range(-args.warmup, args.rounds):
            for key, run in runs.items():
                spent = seconds(run, "cpu")
                if round_ >= 0:
                    times[key].append(spent)

    def ratio(over: tuple[str, ...], under: tuple[str, ...]) -> float:
        pairs = zip(times[over], times[under], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    rows = []
    for code, method in public(args):
        own, theirs = ("ours", method), (code, method)
        row = {
            "method": method,
            "code": code,
            "batch": BATCH,
            "ours_to_plain": ratio(own, ("ours", "ce")),
            "public_to_plain": ratio(theirs, ("ours", "ce")),
            "ours_to_public": ratio(own, theirs),
            "auto": AUTO,
            "ours_auto_to_public": ratio(("auto", method), theirs),
            "our_reads": found[own]["reads"],
            "public_reads": found[theirs]["reads"],
            "our_mib": found[own]["mib"],
            "public_mib": found[theirs]["mib"],
            "rounds": args.rounds,
        }
        rows.append(row)
        print(*row.values(), sep="\t")
    print(record(args.name, rows))


if __name__ == "__main__":
    main()
