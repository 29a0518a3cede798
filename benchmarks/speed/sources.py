"""Class folders, tar shards and Arrow, streamed: what opening and reading cost as the set grows.

Sets of all sizes lie in a temporary folder; those of class folders are links to a hundred files.
Each is opened in a fresh process, for the first time and again. The rate is that of one process
per source, which reads from all sizes in turn, so that its ratios are of the same minutes.

uv run python benchmarks/speed/sources.py
"""

import argparse
import io
import multiprocessing
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import record

from selfdistill.core import keyed_random
from selfdistill.data.class_folders import read_class_folders
from selfdistill.data.hugging_face import read_hugging_face
from selfdistill.data.shards import read_shards

CLASSES = 10
PER_SHARD = 1000
ROUNDS = 10
PURPOSE = keyed_random.purpose("sources")


def encoded(number: int, side: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write_folder(place: Path, images: int, pool: list[bytes]) -> None:
    files = [place.with_name(f"{place.name}-{number}.jpg") for number in range(len(pool))]
    for file, content in zip(files, pool, strict=True):
        file.write_bytes(content)
    for label in range(CLASSES):
        (place / str(label)).mkdir(parents=True)
    for i in range(images):
        os.link(files[i % len(pool)], place / str(i % CLASSES) / f"{i:07}.jpg")


def write_shards(place: Path, images: int, pool: list[bytes]) -> None:
    place.mkdir()
    for start in range(0, images, PER_SHARD):
        with tarfile.open(place / f"train-{start // PER_SHARD:05}.tar", "w") as tar:
            for i in range(start, min(start + PER_SHARD, images)):
                files = {"jpg": pool[i % len(pool)], "cls": str(i % CLASSES).encode()}
                for ending, content in files.items():
                    member = tarfile.TarInfo(f"{i:07}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def write_arrow(place: Path, images: int, pool: list[bytes]) -> None:
    import datasets

    datasets.disable_progress_bars()
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(CLASSES)}
    rows = {
        "image": [{"bytes": pool[i % len(pool)], "path": None} for i in range(images)],
        "label": [i % CLASSES for i in range(images)],
    }
    datasets.Dataset.from_dict(rows, datasets.Features(kinds)).save_to_disk(place)


WRITERS = {"folder": write_folder, "wds": write_shards, "hf": write_arrow}
READERS: dict[str, Callable[[Path], Any]] = {
    "folder": read_class_folders,
    "wds": lambda place: read_shards(str(place), place),
    "hf": lambda place: read_hugging_face(str(place)),
}


def memory_mib(kind: str) -> float:
    """Of this process: RssAnon, what no file backs, or VmHWM, the most that there was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def opening(source: str, place: Path) -> dict[str, float]:
    """Open a set and describe it, as each start of a run does, in a fresh process."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    anonymous, peak, start = memory_mib("RssAnon"), memory_mib("VmHWM"), time.perf_counter()
    train = READERS[source](place).train
    seconds = time.perf_counter() - start
    held = memory_mib("RssAnon") - anonymous
    for _ in train.identities():
        pass
    return {
        "seconds_to_open": round(seconds, 2),
        "seconds_to_describe": round(time.perf_counter() - start - seconds, 2),
        "held_mib": round(held, 1),
        "peak_mib": round(memory_mib("VmHWM") - peak, 1),
    }


def rates(source: str, places: list[Path], side: int, decoded: int) -> list[dict[str, float]]:
    """Images a second of each set, and over the first's, medians of rounds that take turns."""
    torch.set_num_threads(1)
    sets = [READERS[source](place).train.with_size((side, side), 1.0) for place in places]
    orders = []
    for train in sets:
        passes = range(-(-decoded // len(train)))
        order = [keyed_random.permutation(len(train), PURPOSE, number) for number in passes]
        orders.append(torch.cat(order)[:decoded])
    speeds = []
    for rows in zip(*(order.chunk(ROUNDS) for order in orders), strict=True):
        times = []
        for train, samples in zip(sets, rows, strict=True):
            start = time.perf_counter()
            for row in samples.split(1):
                train.fetch(row)
            times.append((time.perf_counter() - start) / len(samples))
        speeds.append([1 / seconds for seconds in times])
    ratios = [[speed / turn[0] for speed in turn] for turn in speeds]
    medians = ([statistics.median(x) for x in zip(*t, strict=True)] for t in (speeds, ratios))
    return [
        {"images_per_second": round(speed), "ratio_median": round(ratio, 2)}
        for speed, ratio in zip(*medians, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = [300, 3000, 30_000, 300_000]
    parser.add_argument("--images", type=int, nargs="+", default=sizes)
    parser.add_argument("--side", type=int, default=32, help="of a picture, in pixels")
    parser.add_argument("--decoded", type=int, default=2000)
    parser.add_argument("--sources", nargs="+", choices=WRITERS, default=list(WRITERS))
    parser.add_argument("--no-record", action="store_true", help="print alone")
    args = parser.parse_args()
    pool = [encoded(number, args.side) for number in range(100)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["__main__", "datasets"])
        for source in args.sources:
            places = [Path(folder) / f"{source}-{images}" for images in args.images]
            for place, images in zip(places, args.images, strict=True):
                WRITERS[source](place, images, pool)
            time.sleep(5)  # a listing of what has just changed is not kept
            opened = []
            for place, images in zip(places, args.images, strict=True):
                for time_of in ("again",) if source == "hf" else ("first", "again"):
                    with context.Pool(1) as process:
                        figures = process.apply(opening, (source, place))
                    opened.append(
                        {"source": source, "opened": time_of, "images": images, **figures}
                    )
            with context.Pool(1) as process:
                about = source, places, args.side, args.decoded
                speeds = dict(zip(args.images, process.apply(rates, about), strict=True))
            rows += [{**row, "side": args.side, **speeds[row["images"]]} for row in opened]
            print(*rows[-len(opened) :], sep="\n", flush=True)
    if not args.no_record:
        print(record("speed-sources", rows))


if __name__ == "__main__":
    main()
