"""Pictures of a folder by what a table calls them."""

import os
import posixpath
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from .listing import Listing
from .parts import split_of_name

PATHS, ANY = 2, 4
"""How many of the spellings are paths, and how many there are."""
_SAMPLE = 20


class NamedPictures:
    """Finds the pictures in and below a folder by what a column of a table says.

    A column has paths from the folder, with or without endings, or else the names of the pictures,
    wherever below the folder they lie, with or without endings: the first of these four that finds
    a picture at all. A path that starts elsewhere is that of the picture with whose path it ends,
    and an absolute one, as of another machine, else that of the only picture of its name. The
    folder of a part in it is no other part's.

    Args:
        folder: no picture outside of it is ever found.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = list(Listing().class_images([folder])[0])
        self._start = len(os.path.join(folder, ""))

    @cached_property
    def _by_spelling(self) -> list[dict[str, list[str]]]:
        """For each of the four the pictures by their spelling."""
        tables: list[dict[str, list[str]]] = [{} for _ in range(ANY)]
        for path in self.paths:
            for known, spelling in zip(tables, _spellings(path[self._start :]), strict=True):
                known.setdefault(spelling, []).append(path)
        return tables

    def spelling(self, column: Sequence[str], limit: int = ANY) -> int | None:
        """Which of the first spellings a column has, by some of its cells; None for none."""
        cells = column[:: max(1, len(column) // _SAMPLE)]
        for number in range(limit):
            if any(self.find(cell, number) is not None for cell in cells):
                return number
        return None

    def find(self, cell: str, spelling: int) -> str | None:
        """The picture that a cell names, "" where it names several, None where it names none."""
        *folders, name = _parts(cell)
        wanted = name if spelling >= PATHS else "/".join((*folders, name))
        pictures = self._by_spelling[spelling].get(wanted, [])
        if spelling >= PATHS and folders:
            same = [
                picture for picture in pictures if not self._is_of_another_part(picture, folders)
            ]
            ends = [picture for picture in same if not self.is_elsewhere(cell, picture)]
            absolute = not folders[0] or folders[0].endswith(":")
            deepest = max((picture.count("/") for picture in ends), default=0)
            pictures = [p for p in ends if p.count("/") == deepest] or (same if absolute else [])
        return None if not pictures else pictures[0] if len(pictures) == 1 else ""

    def is_elsewhere(self, cell: str, picture: str) -> bool:
        """Whether a cell is a path that does not end with the picture's, from the folder."""
        own, folders = self._folders(picture), _parts(cell)[:-1]
        return bool(folders) and folders[len(folders) - len(own) :] != own

    def _folders(self, picture: str) -> list[str]:
        return picture[self._start :].replace(os.sep, "/").split("/")[:-1]

    def _is_of_another_part(self, picture: str, folders: Sequence[str]) -> bool:
        """Whether the last folder of a cell that is not the picture's is another part's."""
        own = [*self.folder.parts, *self._folders(picture)]
        pairs = zip(reversed(own), reversed(folders), strict=False)
        parts = next(((split_of_name(a), split_of_name(b)) for a, b in pairs if a != b), ("", ""))
        return all(parts) and parts[0] != parts[1]


def _parts(cell: str) -> list[str]:
    return posixpath.normpath(cell.strip().replace("\\", "/")).split("/")


def _spellings(relative: str) -> tuple[str, str, str, str]:
    name = os.path.basename(relative)
    return relative, os.path.splitext(relative)[0], name, os.path.splitext(name)[0]
