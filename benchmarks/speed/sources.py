"""Class folders, tar shards and Arrow, streamed: images a second and resident memory, by size.

Each size of each source is read in a process of its own, in a temporary folder.

uv run python benchmarks/speed/sources.py --images 1000 10000 100000
"""

import argparse
import io
import multiprocessing
import sys
import tarfile
import tempfile
import time
from pathlib import Path

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


def encoded(number: int, side: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write_folder(place: Path, images: int, pool: list[bytes]) -> None:
    for label in range(CLASSES):
        (place / str(label)).mkdir(parents=True)
    for i in range(images):
        (place / str(i % CLASSES) / f"{i:07}.jpg").write_bytes(pool[i % len(pool)])


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
READERS = {
    "folder": read_class_folders,
    "wds": lambda place: read_shards(str(place), place),
    "hf": lambda place: read_hugging_face(str(place)),
}


def resident_mib() -> float:
    """Memory of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def measure(source: str, place: Path, decoded: int) -> dict[str, float]:
    """Open a set and decode some of its images in keyed order, in a fresh process."""
    torch.set_num_threads(1)
    if source == "hf":
        import datasets  # noqa: F401  what the library takes is no matter of the set
    before, start = resident_mib(), time.perf_counter()
    train = READERS[source](place).train
    seconds, held = time.perf_counter() - start, resident_mib() - before
    order = keyed_random.permutation(len(train), keyed_random.purpose("sources"), 0)[:decoded]
    start = time.perf_counter()
    for row in order.split(1):
        train.fetch(row)
    return {
        "seconds_to_open": round(seconds, 2),
        "resident_mib": round(held, 1),
        "images_per_second": round(len(order) / (time.perf_counter() - start)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--side", type=int, default=64, help="of a picture, in pixels")
    parser.add_argument("--decoded", type=int, default=1000)
    parser.add_argument("--sources", nargs="+", choices=WRITERS, default=list(WRITERS))
    parser.add_argument("--no-record", action="store_true", help="print alone")
    args = parser.parse_args()
    pool = [encoded(number, args.side) for number in range(100)]
    rows = []
    for images in args.images:
        for source in args.sources:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder) / "set"
                WRITERS[source](place, images, pool)
                times = ("first", "again") if source == "wds" else ("again",)  # with the index
                for time_of in times:
                    with multiprocessing.get_context("spawn").Pool(1) as process:
                        figures = process.apply(measure, (source, place, args.decoded))
                    row = {"source": source, "opened": time_of, "images": images}
                    rows.append({**row, "side": args.side, **figures})
                    print(rows[-1], flush=True)
    if not args.no_record:
        print(record("speed-sources", rows))


if __name__ == "__main__":
    main()
