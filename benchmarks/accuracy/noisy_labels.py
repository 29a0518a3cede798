"""A copy of a data set in MedMNIST's layout, a share of whose training labels is wrong.

    uv run python benchmarks/accuracy/noisy_labels.py cifar100.npz cifar100-noisy.npz

Wrong is each other class with equal probability; which images is drawn once, by the seed. Labels
of validation and test images stay as they are.
"""

import argparse
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--share", type=float, default=0.2, help="of wrong training labels")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    arrays = dict(np.load(args.source))
    labels = arrays["train_labels"].copy()
    draw = np.random.default_rng(args.seed)
    wrong = draw.permutation(len(labels))[: round(args.share * len(labels))]
    classes = int(labels.max()) + 1
    shift = draw.integers(1, classes, len(wrong)).reshape(-1, *[1] * (labels.ndim - 1))
    labels[wrong] = ((labels[wrong].astype(np.int64) + shift) % classes).astype(labels.dtype)
    np.savez(args.target, **{**arrays, "train_labels": labels})
    print(f"{args.target}: {len(wrong):,} of {len(labels):,} training labels are wrong")


if __name__ == "__main__":
    main()
