"""Listing of the files of a data set: regular files only, without hidden ones."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from ..core import DataError
from .file_paths import FilePaths
from .open_image import EXTENSIONS

QUIET = (
    ".txt", ".xml", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".yaml", ".yml", ".md", ".html",
    ".names", ".db", ".ini", ".cache",
)  # fmt: skip
"""Endings of files that are passed over without a word."""
MANY = 10_000
"""Images from which on a listing is worth keeping."""
LABEL_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Endings of the tables that `csv:FILE` reads."""
_LABEL_LISTS = (*LABEL_TABLES, ".parquet")
_HIDDEN_FOLDERS = (".", "__", "@eaDir")
RULES = repr((EXTENSIONS, QUIET, _HIDDEN_FOLDERS))
"""What decides whether a file or a folder is listed, as a text."""
_MAX_SHOWN = 5


class Stamp(NamedTuple):
    """What of a folder or file changes with it: times in nanoseconds, size and identity."""

    modified: int
    changed: int
    size: int
    inode: int
    links: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The stamp in the answer of `os.stat`."""
        times = status.st_mtime_ns, status.st_ctime_ns
        return cls(*times, status.st_size, status.st_ino, status.st_nlink)


class Listing:
    """Lists images, and counts the files that it passes over.

    A folder that links lead to twice is visited once.

    Args:
        on_many: called once as soon as more than `MANY` images are found.

    Attributes:
        stamps: of every folder that was listed, as it was before that.
        devices: on which these lie.
        complete: whether all that decides the outcome is dated by the stamps: what a link leads to
            that leads nowhere is not.
    """

    def __init__(self, on_many: Callable[[], None] | None = None) -> None:
        self.stamps: dict[str, Stamp] = {}
        self.devices: set[int] = set()
        self.complete = True
        self._passed_over: Counter[str] = Counter()
        self._broken_links: dict[str, None] = {}
        self._visited: set[tuple[int, int]] = set()
        self._on_many, self._num_images = on_many, 0

    def class_images(self, folders: Sequence[Path]) -> tuple[FilePaths, list[int]]:
        """The images in and below each of these folders, sorted, and how many there are in each.

        Raises:
            DataError: two of the folders are one.
        """
        for folder in folders:
            if not self._enter(folder):
                raise DataError(f"{folder} is a link to another folder of this set; remove it")
        counts = [0] * len(folders)

        def images() -> Iterator[str]:
            for number, folder in enumerate(folders):
                paths = sorted(self._tree(folder))
                counts[number] = len(paths)
                yield from paths

        return FilePaths.of(images()), counts

    def subfolders(self, folder: Path) -> list[Path]:
        """The folders in a folder, see `subfolders`."""
        self.stamp(str(folder))
        for entry in _entries(folder):
            if entry.is_symlink() and not _exists(entry):
                self._pass_over_link(entry)
        return subfolders(folder)

    def _pass_over_link(self, entry: os.DirEntry[str]) -> None:
        self._broken_links[entry.path] = None
        self.complete = False  # it may lead to a file or a folder once that is mounted

    def stamp(self, path: str) -> None:
        """Let the outcome depend on a folder or a file, before it is read."""
        if path not in self.stamps:
            with suppress(OSError):  # which reading it tells
                self._add_stamp(path, os.stat(path))

    def _add_stamp(self, path: str, status: os.stat_result) -> None:
        self.stamps.setdefault(path, Stamp.of(status))
        self.devices.add(status.st_dev)

    def _tree(self, folder: Path) -> Iterator[str]:
        pending = [folder]
        while pending:
            folder = pending.pop()
            inner = []
            for entry in _unsorted_entries(folder):
                if _is_folder(entry):
                    inner += [Path(entry.path)] if _is_shown(entry) else []
                elif not entry.name.startswith(".") and self._is_image(entry):
                    self._num_images += 1
                    yield entry.path
            pending += [one for one in sorted(inner) if self._enter(one)]
            if self._num_images > MANY and self._on_many:
                on_many, self._on_many = self._on_many, None
                on_many()

    def by_stem(self, folder: Path, extensions: tuple[str, ...] = EXTENSIONS) -> dict[str, Path]:
        """The files of a folder with one of these endings by their names without it, sorted.

        Raises:
            DataError: two images have the same name but for the ending.
        """
        files: dict[str, Path] = {}
        for entry in _files(folder):
            path = Path(entry.path)
            if extensions is EXTENSIONS and not self._is_image(entry):
                continue
            if path.suffix.lower() not in extensions:
                continue
            if path.stem in files:
                raise DataError(
                    f"{files[path.stem]} and {path} have one name, so what belongs to which is "
                    "unknown; rename or remove one of them"
                )
            files[path.stem] = path
        return files

    def notes(self) -> tuple[str, ...]:
        """A sentence on the files that were passed over, and one on links that lead nowhere."""
        notes = passed_over_notes(self._passed_over)
        if links := list(self._broken_links):
            first, *others = (f"'{link}'" for link in links)
            more = f" and {len(others):,} more" if others else ""
            verb = "lead nowhere and are" if others else "leads nowhere and is"
            notes += (f"link {first}{more} {verb} passed over; mount or mend what is linked",)
        return notes

    def _is_image(self, file: os.DirEntry[str]) -> bool:
        ending = os.path.splitext(file.name)[1].lower()
        if file.is_symlink() and not _exists(file):
            self._pass_over_link(file)
            return False
        if not _is_file(file):  # a pipe, a device
            self._passed_over["no regular file"] += 1
            self.complete = False
            return False
        if file.is_symlink():
            self._stamp_target(file.path)
        if ending in EXTENSIONS:
            return True
        if ending not in QUIET:
            self._passed_over[ending or "no ending"] += 1
        return False

    def _stamp_target(self, link: str) -> None:
        """Let the outcome depend on the folder of what a link leads to."""
        target = os.path.join(os.path.dirname(link), os.readlink(link))
        if os.path.islink(target):
            self.complete = False
        self.stamp(os.path.dirname(target))

    def _enter(self, folder: Path) -> bool:
        status = folder.stat()
        self._add_stamp(str(folder), status)
        identity = status.st_dev, status.st_ino
        if identity in self._visited:
            return False
        self._visited.add(identity)
        return True


def passed_over_notes(passed_over: Counter[str]) -> tuple[str, ...]:
    """A sentence on files that were passed over, by their endings, if there were any."""
    if not passed_over:
        return ()
    total = passed_over.total()
    kinds = [f"{kind} ({n:,})" for kind, n in passed_over.most_common(_MAX_SHOWN)]
    more = ", …" if len(passed_over) > _MAX_SHOWN else ""
    verb = "files are" if total > 1 else "file is"
    return (
        f"{total:,} {verb} passed over, which are no images by their ending: "
        f"{', '.join(kinds)}{more}; convert or rename those that are",
    )


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; none if it is no folder."""
    if not os.path.isdir(folder):
        return []
    return [
        Path(entry.path) for entry in _entries(folder) if _is_folder(entry) and _is_shown(entry)
    ]


def child_folder(folder: Path, *names: str) -> Path | None:
    """The first of these folders that there is, in one of the usual cases."""
    for name in names:
        for spelling in (name, name.capitalize(), name.upper()):
            if os.path.isdir(folder / spelling):
                return folder / spelling
    return None


def label_list_hint(folder: Path, source: str = "") -> str:
    """A clause on a list of labels in a folder, "" where there is none.

    Args:
        folder: where it may lie.
        source: the data source that reads tables for the task, if there is one.
    """
    lists = [e.name for e in _files(folder) if e.name.lower().endswith(_LABEL_LISTS)]
    tables = [name for name in lists if name.lower().endswith(LABEL_TABLES) and source]
    if tables:
        return f"; --data {source}:{folder / tables[0]} reads classes from that table"
    return f"; labels in {lists[0]} are not read" if lists else ""


def has_pair(folder: Path, extension: str) -> bool:
    """Whether an image lies beside a file of its name with this ending."""
    if not os.path.isdir(folder):
        return False
    stems: dict[bool, set[str]] = {True: set(), False: set()}
    for entry in _files(folder):
        stem, ending = os.path.splitext(entry.name)
        if (labels := ending.lower() == extension) or ending.lower() in EXTENSIONS:
            stems[labels].add(stem)
            if stem in stems[not labels]:
                return True
    return False


def _files(folder: Path) -> list[os.DirEntry[str]]:
    return [e for e in _entries(folder) if not e.name.startswith(".") and not _is_folder(e)]


def _is_shown(folder: os.DirEntry[str]) -> bool:
    return not folder.name.startswith(_HIDDEN_FOLDERS)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _exists(entry: os.DirEntry[str]) -> bool:
    return _is_folder(entry) or _is_file(entry)


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a regular file, which the folder tells of all but links."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    return sorted(_unsorted_entries(folder), key=lambda entry: entry.name)


def _unsorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"cannot list the folder {folder} ({error.strerror})") from None
