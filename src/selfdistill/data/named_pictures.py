"""Pictures of a folder by what a table calls them."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from .listing import Listing

PATHS, ANY = 2, 4
"""How many of the spellings are paths, and how many there are."""
_SAMPLE = 20


class NamedPictures:
    """Finds the pictures in and below a folder by what a column of a table says.

    A column has paths from the folder, with or without endings, or else the names of the pictures,
    wherever below the folder they lie, with or without endings: the first of these four that finds
    a picture at all. Of paths of another machine the name is what counts.

    Args:
        folder: no picture outside of it is ever tables.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = list(Listing().class_images([folder])[0])

    @cached_property
    def _by_spelling(self) -> list[dict[str, str]]:
        """For each of the four the pictures by their spelling; "" for what names two."""
        tables: list[dict[str, str]] = [{} for _ in range(ANY)]
        start = len(os.path.join(self.folder, ""))
        for path in self.paths:
            for known, spelling in zip(tables, _spellings(path[start:]), strict=True):
                known[spelling] = "" if spelling in known else path
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
        cell = cell.strip().replace("\\", "/").removeprefix("./")
        return self._by_spelling[spelling].get(cell if spelling < PATHS else os.path.basename(cell))


def _spellings(relative: str) -> tuple[str, str, str, str]:
    name = os.path.basename(relative)
    return relative, os.path.splitext(relative)[0], name, os.path.splitext(name)[0]
