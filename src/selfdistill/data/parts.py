"""Parts of a data set by the names of folders, files and arrays: train, val and test."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from ..core import DataError
from .listing import child_folder, has_pair, subfolders

SPLITS = ("train", "val", "test")
_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_PART = re.compile(rf"({'|'.join(_NAMES)})[ _-]?(?:set|data|images)?[ _-]?\d*")
Pairs = dict[str, list[tuple[Path, Path]]]
"""Folders of images, and of what belongs to them, by split."""
_T = TypeVar("_T")
_HELD_OUT_ALONE = ContextVar("held_out_alone", default=False)


@contextmanager
def held_out_alone() -> Iterator[None]:
    """Context in which data may have a test or validation part alone, which is read as the only."""
    token = _HELD_OUT_ALONE.set(True)
    try:
        yield
    finally:
        _HELD_OUT_ALONE.reset(token)


def may_lack_training() -> bool:
    """Whether this is the context of `held_out_alone`."""
    return _HELD_OUT_ALONE.get()


def split_of_name(name: str) -> str | None:
    """`train`, `val` or `test` for a name such as `train2017`, `Valid` or `test_set`."""
    match = _PART.fullmatch(name.casefold())
    return _NAMES[match[1]] if match else None


def resembles_part(name: str) -> bool:
    """Whether one of the words in a name is that of a part, as in `seg_train`."""
    return bool(parts_in_name(name))


def parts_in_name(name: str) -> set[str]:
    """The parts that words of a name are, as `train` in `imagenet-train-0001`."""
    splits = map(split_of_name, re.split(r"[^a-z0-9]+", name.casefold()))
    return {split for split in splits if split}


def by_split(
    candidates: Iterable[Path], name: Callable[[Path], str] = lambda path: path.name
) -> dict[str, list[Path]]:
    """Folders or files that hold parts, by split; none if none of them is named as a part.

    Args:
        candidates: the paths.
        name: what of a path names its part.

    Raises:
        DataError: one is not named as a part where others are, or there is no training part.
    """
    splits: dict[str, list[Path]] = {}
    unknown: list[Path] = []
    for candidate in candidates:
        split = split_of_name(name(candidate))
        (splits.setdefault(split, []) if split else unknown).append(candidate)
    if splits and unknown:
        other = name(next(iter(splits.values()))[0])
        raise DataError(
            f"{unknown[0]} looks like a part of the data as {other} is, and its name does not say "
            "which; call it train, val or test, or move it elsewhere"
        )
    if splits and "train" not in splits:
        return {"train": only_part(splits)}
    return {split: splits[split] for split in SPLITS if split in splits}


def only_part(splits: Mapping[str, _T]) -> _T:
    """What is held out, where there is nothing to train on.

    Raises:
        DataError: there has to be a training part, see `held_out_alone`.
    """
    if not may_lack_training():
        firsts = (part[0] if isinstance(part, list) else part for part in splits.values())
        named = " and ".join(map(str, firsts))
        raise DataError(f"there is {named} and no training part beside; call that train")
    return splits["test"] if "test" in splits else splits["val"]


def single(splits: dict[str, list[Path]]) -> dict[str, Path]:
    """The one folder or file of each split.

    Raises:
        DataError: two are named as the same part.
    """
    for split, paths in splits.items():
        if len(paths) > 1:
            raise DataError(
                f"{paths[0]} and {paths[1]} both hold the {split} part; keep one of them there"
            )
    return {split: path for split, (path,) in splits.items()}


def paired_folders(
    path: Path, image_folders: tuple[str, ...], others: tuple[str, ...], extension: str = ""
) -> Pairs:
    """Folders of images and of what belongs to them, by split.

    PATH/images and PATH/labels, parts within both of these, or both within the folders of parts;
    with an extension also images and files of that ending in one folder.

    Raises:
        DataError: a part is not understood.
    """
    if pair := _pair(path, image_folders, others, extension):
        images, belongings = pair
        pairs = {f: (f, belongings / f.name) for f in subfolders(images) if images != belongings}
        lacking = {f: pair[1] for f, pair in pairs.items() if not pair[1].is_dir()}
        pairs = {f: pair for f, pair in pairs.items() if f not in lacking}
        if not by_split(pairs):
            return {"train": [pair]}
    else:
        ending_of = {f: extension * resembles_part(f.name) for f in subfolders(path)}
        pairs_of = {f: _pair(f, image_folders, others, ending_of[f]) for f in ending_of}
        pairs = {f: pair for f, pair in pairs_of.items() if pair}
        lacking = {f: f / others[0] for f in ending_of if child_folder(f, *image_folders)}
    for folder, missing in lacking.items():
        if pairs and folder not in pairs and split_of_name(folder.name):
            raise DataError(
                f"there is no folder {missing}, and other parts have one; add it, or move {folder} "
                "elsewhere"
            )
    return {split: [pairs[f] for f in folders] for split, folders in by_split(pairs).items()}


def _pair(
    folder: Path, image_folders: tuple[str, ...], others: tuple[str, ...], extension: str
) -> tuple[Path, Path] | None:
    images, belongings = child_folder(folder, *image_folders), child_folder(folder, *others)
    if images and belongings:
        return images, belongings
    together = images or folder
    if extension and belongings is None and has_pair(together, extension):
        return together, together
    return None
