"""Listings of large folders, kept in the user's cache until a folder changes.

On the disk of one machine listing is fast; on a network a million names take minutes, and every
process of every run would ask for them.
"""

import fcntl
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..core import ResourceError, atomic_file
from .file_paths import FilePaths
from .listing import MANY, RULES, Listing, Stamp

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "selfdistill")
"""Where things are kept that can be made anew."""
_FORMAT = 1  # raised with whatever decides what is listed
_COARSEST = 3 * 10**9  # nanoseconds: FAT dates by 2 s, and no file system more coarsely
_COLUMNS = ("starts", "ends", "owners", "numbers")
_DAMAGED = (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError)


class ListedImages(NamedTuple):
    """What listing a folder gave.

    Attributes:
        classes: names of the class folders, if they mean classes.
        parts: by split, the paths and for each the number of its class or folder, (N,) int32.
        notes: what was left out, sentences.
    """

    classes: list[str]
    parts: Mapping[str, tuple[FilePaths, npt.NDArray[np.int32]]]
    notes: tuple[str, ...] = ()

    @property
    def num_images(self) -> int:
        """Images of all parts."""
        return sum(len(paths) for paths, _ in self.parts.values())


class _AlreadyListedError(Exception):
    """Another process has listed the folder."""

    def __init__(self, listed: ListedImages) -> None:
        super().__init__()
        self.listed = listed


def listed_images(path: Path, layout: str, read: Callable[[Listing], ListedImages]) -> ListedImages:
    """What `read` lists in a folder, or has listed before if nothing has changed since.

    Listings of more than `MANY` images are kept, in `CACHE`/listings. A folder is listed anew where
    time, size or identity of one in it is another than before. Where these would not tell, nothing
    is kept: if a folder was changed less than 3 s ago, if a link leads nowhere, and on file systems
    that a program serves (FUSE), such as object stores. Of several processes that meet so many
    images one lists and the others wait for it.

    Args:
        path: the folder.
        layout: what `read` takes the folder for.
        read: lists the images by the given `Listing` alone.
    """
    place = _place(path, layout)
    if stored := _stored(place):
        return stored
    start = time.time_ns()
    with ExitStack() as stack:

        def wait_for_others() -> None:
            if _is_dated(listing, start):
                stack.enter_context(_locked(place))
                if stored := _stored(place):
                    raise _AlreadyListedError(stored)

        listing = Listing(on_many=wait_for_others)
        try:
            listed = read(listing)
        except _AlreadyListedError as other:
            return other.listed
        if listed.num_images > MANY and _is_dated(listing, start):
            _keep(place, listed, listing.stamps)
    return listed


def _place(path: Path, layout: str) -> Path:
    """The file for a folder, by how it is called, since paths and notes begin so."""
    key = f"{_FORMAT}\0{RULES}\0{layout}\0{path}\0{os.path.abspath(path)}"
    name = hashlib.sha256(os.fsencode(key)).hexdigest()[:16]
    return Path(os.path.expanduser(CACHE), "listings", f"{name}.safetensors")


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Context that the first process enters at once, and others when the first has left it."""
    with ExitStack() as stack:
        with suppress(OSError):  # nobody waits where files cannot be locked
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(place.with_suffix(".lock").open("ab"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(lock, fcntl.LOCK_SH)  # all go on together if nothing was kept
        yield


def _is_dated(listing: Listing, start: int) -> bool:
    """Whether any change of what was listed will be told by a stamp.

    Args:
        listing: what was listed so far.
        start: of the listing, in nanoseconds.
    """
    stamps = listing.stamps.values()
    newest = max(max(stamp.modified, stamp.changed) for stamp in stamps)
    dated = newest < start - _COARSEST and min(stamp.modified for stamp in stamps) > 0
    return dated and listing.complete and not _served_by_program(listing.devices)


def _served_by_program(devices: set[int]) -> bool:
    """Whether one of the devices is FUSE."""
    numbers = {f"{os.major(device)}:{os.minor(device)}" for device in devices}
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:  # not on Linux
        return False
    mounts = (line.partition(" - ") for line in lines)
    return any(kind.startswith("fuse") and mount.split()[2] in numbers for mount, _, kind in mounts)


def _keep(place: Path, listed: ListedImages, stamps: Mapping[str, Stamp]) -> None:
    about: dict[str, Any] = {"classes": listed.classes, "notes": listed.notes, "stamps": stamps}
    about["folders"] = {split: paths.folders for split, (paths, _) in listed.parts.items()}
    arrays: dict[str, npt.NDArray[Any]] = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8)
    }
    for split, (paths, numbers) in listed.parts.items():
        arrays[f"{split}.names"] = np.frombuffer(paths.names, np.uint8)
        columns: list[npt.NDArray[Any]] = [paths.starts, paths.ends, paths.owners, numbers]
        arrays |= {f"{split}.{n}": c for n, c in zip(_COLUMNS, columns, strict=True)}
    arrays["checksum"] = _checksum(arrays)
    with suppress(ResourceError, OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(place) as draft:
            save_file(arrays, draft)


def _stored(place: Path) -> ListedImages | None:
    """What was kept; None where there is nothing whole, or a folder has changed."""
    if not place.is_file():
        return None
    with suppress(*_DAMAGED):
        arrays = load_file(place)
        if arrays.pop("checksum") != _checksum(arrays):
            return None
        about = json.loads(arrays["about"].tobytes())
        for folder, stamp in about["stamps"].items():
            if Stamp.of(os.stat(folder)) != Stamp(*stamp):
                return None
        parts = {}
        for split, folders in about["folders"].items():
            *places, numbers = (arrays[f"{split}.{name}"] for name in _COLUMNS)
            parts[split] = FilePaths(folders, arrays[f"{split}.names"].tobytes(), *places), numbers
        return ListedImages(about["classes"], parts, tuple(about["notes"]))
    return None


def _checksum(arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint32]:
    """(1,) of all arrays in the order of their names."""
    checksum = 0
    for _, column in sorted(arrays.items()):
        checksum = zlib.crc32(np.ascontiguousarray(column).data, checksum)
    return np.array([checksum], np.uint32)
