"""Paths of many files in little memory."""

import copy
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt


class FilePaths:
    """Paths of files, as numbers of folders and places in one string of all names.

    A million strings would take 150 MB, and be copied by every worker that counts their references.

    Args:
        folders: paths, each once.
        names: of all files, one behind the other.
        starts, ends: (N,) int64, where in `names` that of each file is.
        owners: (N,) int32, number of the folder that each file lies in.
    """

    def __init__(
        self,
        folders: Sequence[str],
        names: bytes,
        starts: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
        owners: npt.NDArray[np.int32],
    ) -> None:
        self.folders, self.names = list(folders), names
        self.starts, self.ends, self.owners = starts, ends, owners

    @classmethod
    def of(cls, paths: Iterable[str | bytes | Path]) -> Self:
        """The paths as they come, none of which is held on to."""
        folders: dict[str, int] = {}
        names, ends, owners = bytearray(), array("q"), array("i")
        for path in paths:
            path = path if isinstance(path, str) else os.fsdecode(path)
            folder, separator, name = path.rpartition(os.sep)
            owners.append(folders.setdefault(folder or separator, len(folders)))
            names += os.fsencode(name)
            ends.append(len(names))
        places = np.frombuffer(ends, np.int64)
        starts = np.concatenate([places[:1] * 0, places[:-1]])
        return cls([*folders], bytes(names), starts, places, np.frombuffer(owners, np.int32))

    def __len__(self) -> int:
        return len(self.owners)

    def __getitem__(self, index: int) -> str:
        name = os.fsdecode(self.names[self.starts[index] : self.ends[index]])
        return os.path.join(self.folders[self.owners[index]], name)

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def take(self, index: npt.NDArray[np.int64]) -> Self:
        """The paths at these indices, in this order."""
        taken = copy.copy(self)
        for name in ("starts", "ends", "owners"):
            setattr(taken, name, getattr(self, name)[index])
        return taken

    def relative(self) -> Iterator[bytes]:
        """Each path from the innermost folder that all files lie in or below."""
        present = np.unique(self.owners).tolist()
        inside = {number: self.folders[number] for number in present}
        parent = os.path.commonpath(inside.values()) if inside else ""
        starts = {
            number: os.fsencode(os.path.join(os.path.relpath(folder or ".", parent or "."), ""))
            for number, folder in inside.items()
        }
        starts = {number: start.removeprefix(b"./") for number, start in starts.items()}
        places = zip(self.owners.tolist(), self.starts.tolist(), self.ends.tolist(), strict=True)
        return (starts[owner] + self.names[start:end] for owner, start, end in places)
