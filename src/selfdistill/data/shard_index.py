"""Where in tar shards the images lie and what their labels are, found once and kept in a file."""

import hashlib
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..core import DataError, ResourceError, atomic_file
from .packed_images import ImagePack, Rows
from .shard_scan import COLUMNS, scan
from .threads import map_in_threads

Array = npt.NDArray[Any]
_FORMAT = "1"  # of the file that keeps an index


class ShardIndex(ImagePack):
    """The images of some shards, one row each, in the order in which they lie there.

    Args:
        shards: paths.
        columns: arrays (N,) of the number of the shard, where in it the bytes of the image start,
            how many they are, the label (`NO_LABEL` where there is none), and a hash of the name.
        kinds: number of files that were passed over, by ending.
        without_image: number of samples.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        columns: dict[str, Array],
        kinds: Counter[str],
        without_image: int,
    ) -> None:
        self.shards, self.columns = list(shards), columns
        self.kinds, self.without_image = kinds, without_image

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) int64."""
        return self.columns["label"]

    def read(self, row: int) -> bytes:
        """The bytes of one image file."""
        offset, size = (int(self.columns[name][row]) for name in ("offset", "size"))
        with self._shard(row).open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), size, offset)
        if len(content) < size:
            raise OSError("the shard ends within it")
        return content

    def name(self, row: int) -> str:
        """Shard and name of a file, as far as its last header has it."""
        shard, start = self._shard(row), int(self.columns["offset"][row])
        name = f"byte {start}"
        with suppress(OSError, tarfile.TarError), shard.open("rb") as file:
            header = os.pread(file.fileno(), tarfile.BLOCKSIZE, start - tarfile.BLOCKSIZE)
            name = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
        return f"{shard}:{name}"

    def num_bytes(self, row: int) -> int:
        """How many bytes an image file has."""
        return int(self.columns["size"][row])

    def identities(self, rows: Rows) -> Iterator[bytes]:
        """Name and size of each: shards may move, or be cut anew."""
        pairs = np.stack([self.columns["identity"][rows], self.columns["size"][rows].view("u8")], 1)
        return (pair.tobytes() for pair in pairs)

    def _shard(self, row: int) -> Path:
        return self.shards[int(self.columns["shard"][row])]


def indexed(shards: Sequence[Path], cache: Path) -> ShardIndex:
    """The index of shards, from a file if they have not changed since it was written.

    It is kept beside the shards or, where that folder cannot be written, in `cache`.

    Raises:
        DataError: a shard that is no plain tar or cut off, or a sample that is not understood.
    """
    name = f".shards-{_digest(shards)}.safetensors"
    files = [shards[0].parent / name, cache.expanduser() / name]
    for file in files:
        if index := _stored(file, shards):
            return index
    index = _build(shards)
    for file in files:
        with suppress(ResourceError, OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(file) as draft:
                counts = {"kinds": index.kinds, "without_image": index.without_image}
                save_file(index.columns, draft, {"counts": json.dumps(counts)})
            break
    return index


def _digest(shards: Sequence[Path]) -> str:
    """Of the names, sizes and times of shards."""
    digest = hashlib.sha256(_FORMAT.encode())
    for shard in shards:
        try:
            status = shard.stat()
        except OSError as error:
            raise DataError(f"cannot read the shard {shard} ({error.strerror})") from None
        stamp = f"\0{status.st_size}\0{status.st_mtime_ns}\0"
        digest.update(os.fsencode(shard.name) + stamp.encode())
    return digest.hexdigest()[:16]


def _stored(file: Path, shards: Sequence[Path]) -> ShardIndex | None:
    """An index that was kept; None where there is none, or none that fits."""
    if not file.is_file():
        return None
    codes = {"shard": "q", **COLUMNS}
    try:
        with safe_open(file, "numpy") as stored:
            columns = {name: stored.get_tensor(name) for name in codes}
            counts = json.loads(stored.metadata()["counts"])
        kinds, lacking = Counter[str](counts["kinds"]), int(counts["without_image"])
        length = len(columns["shard"])
        valid = all(
            columns[name].shape == (length,) and columns[name].dtype == np.dtype(code)
            for name, code in codes.items()
        ) and bool((columns["shard"] < len(shards)).all())
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return ShardIndex(shards, columns, kinds, lacking) if valid else None


def _build(shards: Sequence[Path]) -> ShardIndex:
    scans = map_in_threads(scan, shards)
    columns = {
        name: np.concatenate([np.frombuffer(one.columns[name], code) for one in scans])
        for name, code in COLUMNS.items()
    }
    columns["shard"] = np.repeat(
        np.arange(len(shards)), [len(one.columns["label"]) for one in scans]
    )
    kinds = sum((one.kinds for one in scans), Counter[str]())
    return ShardIndex(shards, columns, kinds, sum(one.without_image for one in scans))
