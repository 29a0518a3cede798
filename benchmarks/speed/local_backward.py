"""Memory and time of a step whose backward pass is local, against one that is not.

    uv run python benchmarks/speed/local_backward.py --name speed-local-backward

Compared are LAKD with a backward pass for each local module, the same with one joint pass, and
attention transfer with the same terms from end to end; `ce` is plain training, without a teacher.
`kept_mib` is the most that graphs held for their backward passes at one time (activations, and the
gradients that LAKD computes early; weights are not counted), `peak_mib` the most that the process
held, or the device allocated, beyond what it held before the first step. Each is measured in a
process of its own; times are interleaved in one process, as in `steps.py`.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from record import record
from steps import seconds, stepper

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ce": ("ce", {}),
    "end to end": ("at", {"soft_weight": 1.0}),
    "joint": ("lakd", {"local_backward": False}),
    "local": ("lakd", {}),
}
MIB = 2**20


class Kept:
    """A tensor that a graph keeps, for as long as it does."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class KeptBytes:
    """Counts the bytes of all storages that graphs keep, but those of leaves (weights)."""

    def __init__(self) -> None:
        self.bytes = self.peak = 0
        self.graphs: Counter[int] = Counter()  # that keep the storage at an address

    def pack(self, tensor: Tensor) -> Kept:
        kept, storage = Kept(tensor), tensor.untyped_storage()
        if not (tensor.is_leaf and tensor.requires_grad):
            self.add(storage.data_ptr(), storage.nbytes(), 1)
            weakref.finalize(kept, self.add, storage.data_ptr(), storage.nbytes(), -1)
        return kept

    def add(self, address: int, size: int, count: int) -> None:
        before = self.graphs[address]
        self.graphs[address] += count
        if not before or not self.graphs[address]:
            self.bytes += count * size
        self.peak = max(self.peak, self.bytes)


def held(device: str) -> float:
    """Bytes that the device allocated, or the process had resident, at most."""
    if device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(case: str, args: argparse.Namespace, answers: Any) -> None:
    """Puts `kept_mib` and `peak_mib` of two steps."""
    torch.set_num_threads(args.threads)
    run = stepper(*CASES[case], args, "fp32")
    before = held(args.device)
    for _ in range(2):
        run()
    peak = held(args.device) - before
    counter = KeptBytes()
    with torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda kept: kept.tensor):
        run()
    answers.put({"kept_mib": round(counter.peak / MIB, 1), "peak_mib": round(peak / MIB)})


def memory(case: str, args: argparse.Namespace) -> dict[str, float]:
    """What a step of a case needs, in a process that was forked after all imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["steps"])
    answers = context.Queue()
    process = context.Process(target=measure, args=(case, args, answers))
    process.start()
    measured: dict[str, float] = answers.get(timeout=600)
    process.join()
    return measured


def times(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of a step of each case by round, after a first one that is not counted."""
    runs = {case: stepper(*of, args, "fp32") for case, of in CASES.items()}
    rounds = [
        {case: seconds(run, args.device) for case, run in runs.items()}
        for _ in range(args.rounds + 1)
    ]
    return {case: [spent[case] for spent in rounds[1:]] for case in CASES}


def rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a case, with ratios to the step from end to end."""
    needs = {case: memory(case, args) for case in CASES}
    spent = times(args)
    plain = spent["end to end"]
    return [
        {
            "model": args.model,
            "teacher": args.teacher if case != "ce" else "",
            "batch": args.batch,
            "device": args.device,
            "case": case,
            **needs[case],
            "kept_ratio": round(needs[case]["kept_mib"] / needs["end to end"]["kept_mib"], 3),
            "peak_ratio": round(needs[case]["peak_mib"] / needs["end to end"]["peak_mib"], 3),
            "time_ratio_median": round(
                statistics.median(a / b for a, b in zip(spent[case], plain, strict=True)), 3
            ),
            "milliseconds_median": round(statistics.median(spent[case]) * 1e3, 1),
            "rounds": args.rounds,
        }
        for case in CASES
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["cifar/resnet110", "cifar/wrn_16_2"])
    parser.add_argument("--teacher", help="of all students; each one's own network by default")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", required=True, help="results/NAME.csv")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    table = []
    for model in given.models:
        more = {"model": model, "teacher": given.teacher or model}
        args = argparse.Namespace(**{**vars(given), **more}, task="classification", compile=False)
        for row in rows(args):
            shown = ("model", "case", "kept_mib", "peak_mib", "time_ratio_median")
            print(*[row[key] for key in shown], sep="\t")
            table.append(row)
    print(record(given.name, table))


if __name__ == "__main__":
    main()
