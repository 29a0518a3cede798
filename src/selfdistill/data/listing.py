"""Listing of the files of a data set: regular files only, without hidden ones."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..core import DataError
from .open_image import EXTENSIONS

QUIET = (
    ".txt", ".xml", ".json", ".jsonl", ".csv", ".tsv", ".yaml", ".yml", ".md", ".html", ".names",
    ".db", ".ini", ".cache",
)  # fmt: skip
"""Endings of files that are passed over without a word."""
_LABEL_LISTS = (".csv", ".tsv", ".jsonl", ".parquet")
_HIDDEN_FOLDERS = (".", "__", "@eaDir")
_MAX_SHOWN = 5


class Listing:
    """Lists images, and counts the files that it passes over.

    A folder that links lead to twice is visited once.
    """

    def __init__(self) -> None:
        self._passed_over: Counter[str] = Counter()
        self._visited: set[tuple[int, int]] = set()

    def class_images(self, folders: list[Path]) -> list[list[str]]:
        """The images in and below each of these folders, sorted.

        Raises:
            DataError: two of the folders are one.
        """
        for folder in folders:
            if not self._enter(folder):
                raise DataError(f"{folder} is a link to another folder of this set; remove it")
        return [sorted(self._tree(folder)) for folder in folders]

    def _tree(self, folder: Path) -> Iterator[str]:
        pending = [folder]
        while pending:
            folder = pending.pop()
            yield from (file.path for file in _files(folder) if self._is_image(file))
            pending += [inner for inner in subfolders(folder) if self._enter(inner)]

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
        """A sentence on the files that were passed over, if there were any."""
        return passed_over_notes(self._passed_over)

    def _is_image(self, file: os.DirEntry[str]) -> bool:
        ending = os.path.splitext(file.name)[1].lower()
        if not os.path.isfile(file.path):  # a pipe, a device, a link to nothing
            self._passed_over["no regular file"] += 1
            return False
        if ending in EXTENSIONS:
            return True
        if ending not in QUIET:
            self._passed_over[ending or "no ending"] += 1
        return False

    def _enter(self, folder: Path) -> bool:
        status = folder.stat()
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
        Path(entry.path)
        for entry in _entries(folder)
        if _is_folder(entry) and not entry.name.startswith(_HIDDEN_FOLDERS)
    ]


def child_folder(folder: Path, *names: str) -> Path | None:
    """The first of these folders that there is, in one of the usual cases."""
    for name in names:
        for spelling in (name, name.capitalize(), name.upper()):
            if os.path.isdir(folder / spelling):
                return folder / spelling
    return None


def label_list_hint(folder: Path) -> str:
    """A clause that a list of labels in a folder is not read; "" where there is none."""
    lists = (e.name for e in _files(folder) if e.name.lower().endswith(_LABEL_LISTS))
    name = next(lists, "")
    return f"; labels in {name} are not read" if name else ""


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


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot list the folder {folder} ({error.strerror})") from None
