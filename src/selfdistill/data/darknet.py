"""Lists of image paths, as darknet and CVAT write them beside YOLO's labels."""

import os
from pathlib import Path, PurePosixPath

from ..core import DataError
from .listing import subfolders
from .open_image import EXTENSIONS
from .parts import by_split, split_of_name
from .text_files import read_lines

_MAX_PATH = 4096  # signs
_MAX_SEARCHED = 100  # images that may be without an object


def path_lists(path: Path) -> dict[str, list[Path]]:
    """The lists train.txt, valid.txt and test.txt of a folder by split, if nothing else says parts.

    Folders that are named as parts come first: toolkits leave lists of other images beside them.
    """
    folders = [*subfolders(path), *subfolders(path / "images")]
    lists = [f for f in sorted(path.glob("[!.]*.txt")) if split_of_name(f.stem)]
    if any(split_of_name(folder.name) for folder in folders):
        return {}
    train = next((f for f in lists if split_of_name(f.stem) == "train"), None)
    return by_split(lists, lambda f: f.stem) if train and _lists_labeled(path, train) else {}


def _lists_labeled(path: Path, file: Path) -> bool:
    """Whether one of the first lines of a file names an image that has labels."""
    try:
        lines = _paths(file)[:_MAX_SEARCHED]
    except DataError:  # of something else
        return False
    lines = [line for line in lines if line.suffix.lower() in EXTENSIONS]
    if not lines or (start := _start(path, lines[0])) is None:
        return False
    return any(label_file(path.joinpath(*line.parts[start:])).is_file() for line in lines)


def listed_images(path: Path, file: Path) -> list[Path]:
    """The images that a list names, below a folder.

    Paths are darknet's: from the folder in which it was started, or of another machine. The first
    one tells how much of their beginnings is to be left out.

    Raises:
        DataError: an image is not there.
    """
    lines = _paths(file)
    if not lines:
        raise DataError(f"{file} names no picture; remove it")
    start = _start(path, lines[0]) or 0
    images = []
    for line in lines:
        if ".." in line.parts or not _is_file(path, line, start):
            raise DataError(
                f"{file} names the picture {str(line)[:200]}, and there is none of this name below "
                f"{path}; correct the list, or remove it"
            )
        images.append(path.joinpath(*line.parts[start:]))
    return images


def label_file(image: Path) -> Path:
    """Where darknet looks for an image's labels: in `labels` for `images`, or beside it."""
    parts = list(image.parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        moved = Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
        if moved.is_file():
            return moved
    return image.with_suffix(".txt")


def _paths(file: Path) -> list[PurePosixPath]:
    return [PurePosixPath(line.replace("\\", "/")) for line in read_lines(file)]


def _start(path: Path, line: PurePosixPath) -> int | None:
    """How many of a path's first parts are to be left out for a file below a folder."""
    return next((n for n in range(len(line.parts)) if _is_file(path, line, n)), None)


def _is_file(path: Path, line: PurePosixPath, start: int) -> bool:
    """Whether a path without its first parts leads to a file below a folder."""
    text = "/".join(line.parts[start:])
    sound = text and not text.startswith("/") and "\0" not in text and len(text) < _MAX_PATH
    return bool(sound) and os.path.isfile(path / text)
