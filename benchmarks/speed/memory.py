"""Peak memory of two training steps of each method, each in a process of its own.

    uv run python benchmarks/speed/memory.py --model cifar/resnet18 --batch 16 --name x

Counted is what the process ever held beyond what it held after importing everything.
"""

import argparse
import multiprocessing
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from record import record
from steps import CASES, arguments, stepper


def _peak(case: str, args: argparse.Namespace, answers: Any) -> None:
    torch.set_num_threads(args.threads)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = stepper(*CASES[case], args, "fp32")
    for _ in range(2):
        run()
    answers.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def peak_memory(case: str, args: argparse.Namespace) -> int:
    """Peak MiB of a process that builds the case and takes two steps in fp32."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_peak, args=(case, args, answers))
    process.start()
    found: float = answers.get(timeout=600)
    process.join()
    return round(found)


def main() -> None:
    args = arguments()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(partial(peak_memory, args=args), args.cases))
    plain = found[args.cases.index("ce")]
    rows = [
        {
            "model": args.model,
            "batch": args.batch,
            "case": case,
            "peak_mib": peak,
            "ratio": round(peak / plain, 2),
        }
        for case, peak in zip(args.cases, found, strict=True)
    ]
    for row in rows:
        print(row["case"], row["peak_mib"], row["ratio"], sep="\t")
    print(record(args.name, rows))


if __name__ == "__main__":
    main()
