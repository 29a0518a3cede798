"""The two further sets of docs/study.md's parts 2 and 8, from data in the usual layouts.

    uv run python benchmarks/accuracy/fine_tuning_sets.py objects cifar100.npz objects.npz
    uv run python benchmarks/accuracy/fine_tuning_sets.py frames actions frames

`objects` takes ten of CIFAR-100's classes, every tenth from 3 (bear) to 93 (turtle), out of a file
in MedMNIST's layout. `frames` takes the middle picture of each clip out of a folder of clips,
{train,test}/CLASS/CLIP/*, whose names hold UCF101's group (`Rowing_g11_c01`); groups from 23 on
are held out for validation.
"""

import argparse
import re
import shutil
from pathlib import Path

import numpy as np

CLASSES = list(range(3, 100, 10))
HELD_OUT = 23  # the first group of the validation images


def objects(source: Path, target: Path) -> None:
    """Ten classes of an npz file, numbered from 0."""
    arrays = np.load(source)
    kept = {}
    for part in ("train", "val", "test"):
        labels = arrays[f"{part}_labels"]
        of_ten = np.isin(labels, CLASSES).reshape(-1)
        kept[f"{part}_images"] = arrays[f"{part}_images"][of_ten]
        kept[f"{part}_labels"] = np.searchsorted(CLASSES, labels[of_ten])
    np.savez(target, **kept)


def frames(source: Path, target: Path) -> None:
    """The middle picture of each clip, in {train,val,test}/CLASS."""
    for clip in sorted(source.glob("*/*/*/")):
        part, label, name = clip.parts[-3:]
        group = re.search(r"_g(\d+)", name)
        if group is None:
            raise SystemExit(f"{clip}: its name holds no group, as in Rowing_g11_c01")
        if part == "train" and int(group[1]) >= HELD_OUT:
            part = "val"
        pictures = sorted(clip.iterdir())
        middle = pictures[len(pictures) // 2]
        (target / part / label).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(middle, target / part / label / f"{name}{middle.suffix}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=["objects", "frames"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    (objects if args.set == "objects" else frames)(args.source, args.target)


if __name__ == "__main__":
    main()
