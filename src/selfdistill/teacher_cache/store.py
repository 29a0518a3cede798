"""Encoded outputs in files that a kill, a full disk or a second writer cannot corrupt.

A file holds outputs of one view in one epoch of the cycle, for some of the samples. Its name ends
with the SHA-256 of its bytes, it appears in one atomic move, and it never changes: any number of
processes write and read the same folder without a lock, and what was torn is told by its name.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..core import ResourceError, write_atomically
from ..core.files import remove_stale_drafts

FORMAT = 1
"""A part of the description, so that another layout has another folder."""
DESCRIPTION_FILE = "cache.json"
_NAME_DIGITS, _FOLDER_DIGITS = 32, 16
_SAMPLES = "samples"
MISSING, PENDING = -1, -2
"""Places of outputs that nobody has computed, and of those that are not yet written."""


class OutputStore:
    """A folder of encoded outputs, all of one teacher and one kind of views.

    Args:
        root: the folder is made in it, named by the SHA-256 of the description.
        description: everything that the outputs depend on but sample, epoch and view; JSON.
        num_samples: of the training set.
        rank: of this process; the first one writes the description and clears up.

    Raises:
        ResourceError: the folder cannot be made.
    """

    def __init__(
        self, root: Path, description: Mapping[str, Any], num_samples: int, rank: int = 0
    ) -> None:
        text = json.dumps({"format": FORMAT, **description}, indent=1, sort_keys=True)
        self.folder = root / hashlib.sha256(text.encode()).hexdigest()[:_FOLDER_DIGITS]
        self.num_samples = num_samples
        self.checked: set[str] = set()
        self.writable = True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"{self.folder} cannot be made: {error.strerror}; name another --cache-dir"
            ) from None
        if rank == 0:
            remove_stale_drafts(self.folder)
            _write_description(self.folder / DESCRIPTION_FILE, text + "\n")

    def open(self, epoch: int, view: int) -> "StoredView":
        """The outputs of one view in one epoch of the cycle, as far as they are there."""
        return StoredView(self, f"{epoch:05d}-{view:02d}-")

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    @property
    def free_bytes(self) -> int:
        """Free space on the disk."""
        return shutil.disk_usage(self.folder).free

    def write(self, prefix: str, tensors: dict[str, Tensor]) -> bool:
        """Write a file, unless the disk has refused one before; returns whether it is there."""
        if not self.writable:
            return False
        content = save(tensors)
        digest = hashlib.sha256(content).hexdigest()[:_NAME_DIGITS]
        name = f"{prefix}{digest}.safetensors"
        try:
            write_atomically(self.folder / name, content)
        except ResourceError as error:
            self.writable = False
            warnings.warn(
                f"{error}; no further outputs of the teacher are kept, and it goes on live where "
                "they are missing",
                stacklevel=2,
            )
            return False
        self.checked.add(name)
        return True

    def read(self, path: Path) -> "Shard | None":
        """A file's tensors; None where it is gone or damaged, when it is removed."""
        try:
            if self._is_intact(path) and (shard := self._mapped(path)):
                return shard
            path.unlink(missing_ok=True)
        except FileNotFoundError:  # another process found it damaged
            return None
        except OSError as error:
            raise ResourceError(f"{path} cannot be read: {error.strerror}") from None
        warnings.warn(
            f"{path} is damaged and was removed; the outputs in it are computed anew", stacklevel=2
        )
        return None

    def _is_intact(self, path: Path) -> bool:
        """Whether a file's bytes are those that its name tells."""
        if path.name not in self.checked:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()[:_NAME_DIGITS]
            if not path.stem.endswith(digest):
                return False
            self.checked.add(path.name)
        return True

    def _mapped(self, path: Path) -> "Shard | None":
        """A file's tensors, whose pages are read where they are used; None if it has others."""
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError:
            return None
        samples = tensors.pop(_SAMPLES, torch.empty(0)).long()
        rows = {len(samples), *(len(tensor) for tensor in tensors.values())}
        known = len(samples) and samples.min() >= 0 and samples.max() < self.num_samples
        return Shard(samples, tensors) if known and len(rows) == 1 else None


class Shard(NamedTuple):
    """Samples (N,) int64 and their rows (N, ...) by name, mapped into memory where of a file."""

    samples: Tensor
    tensors: dict[str, Tensor]


class StoredView:
    """The outputs of one view in one epoch of the cycle.

    Args:
        store: that holds them.
        prefix: of the names of their files.
    """

    def __init__(self, store: OutputStore, prefix: str) -> None:
        self.store, self.prefix = store, prefix
        self.places = torch.full((store.num_samples,), MISSING, dtype=torch.int64)
        self.starts: list[int] = []  # the place of each file's first row
        self.shards: dict[str, Shard] = {}
        self.end = 0
        self.pending: list[Shard] = []
        self.pending_bytes = 0
        self.refresh()

    def refresh(self) -> None:
        """Open the files that have appeared since the last time."""
        for path in sorted(self.store.folder.glob(f"{self.prefix}*.safetensors")):
            if path.name in self.shards:
                continue
            if shard := self.store.read(path):
                self._append(path.name, shard)

    def _append(self, name: str, shard: Shard) -> None:
        samples = shard.samples
        rows = torch.arange(self.end, self.end + len(samples))
        new = self.places[samples] < 0
        self.places[samples[new]] = rows[new]
        self.starts.append(self.end)
        self.shards[name] = shard
        self.end += len(samples)

    def gather(self, samples: Tensor) -> dict[str, Tensor]:
        """The stored rows of samples (B,) that are all there, by name."""
        places = self.places[samples]
        shards = list(self.shards.values())
        owners = torch.bucketize(places, torch.tensor(self.starts), right=True) - 1
        rows = places - torch.tensor(self.starts)[owners]
        numbers = owners.unique().tolist()
        if len(numbers) == 1:
            return {n: t.index_select(0, rows) for n, t in shards[numbers[0]].tensors.items()}
        gathered = {
            name: tensor.new_empty(len(samples), *tensor.shape[1:])
            for name, tensor in shards[0].tensors.items()
        }
        for number in numbers:
            where = (owners == number).nonzero()[:, 0]
            for name, tensor in shards[number].tensors.items():
                gathered[name][where] = tensor.index_select(0, rows[where])
        return gathered

    def add(self, samples: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Keep the rows (B, ...) of samples (B,) that are missing, until `flush` writes them."""
        new = (self.places[samples] == MISSING).nonzero()[:, 0]
        if not (self.store.writable and len(new)):
            return
        kept = {name: tensor.cpu().index_select(0, new) for name, tensor in rows.items()}
        self.places[samples[new]] = PENDING
        self.pending.append(Shard(samples[new], kept))
        self.pending_bytes += sum(t.numel() * t.element_size() for t in kept.values())

    def flush(self) -> None:
        """Write the pending rows that no other process has written meanwhile."""
        pending, self.pending, self.pending_bytes = self.pending, [], 0
        if not pending:
            return
        self.refresh()
        samples = torch.cat([shard.samples for shard in pending])
        left = (self.places[samples] == PENDING).nonzero()[:, 0]
        if not len(left):
            return
        tensors = {
            name: torch.cat([shard.tensors[name] for shard in pending]).index_select(0, left)
            for name in pending[0].tensors
        }
        samples = samples[left]
        if self.store.write(self.prefix, {_SAMPLES: samples.to(torch.int32), **tensors}):
            self.refresh()


def _write_description(path: Path, text: str) -> None:
    """Write it unless it is there: the folder of a full store may be read-only."""
    if not (path.is_file() and path.read_bytes() == text.encode()):
        write_atomically(path, text)
