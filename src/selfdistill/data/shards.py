"""Images in tar shards, laid out as WebDataset has them."""

import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ..core import DataError, nearest
from .listing import passed_over_notes, subfolders
from .packed_splits import packed_splits
from .parts import by_split, parts_in_name
from .shard_index import ShardIndex, indexed
from .splits import DatasetSplits
from .text_files import read_class_names

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_WILDCARDS = re.compile(r"[*?]")
_MAX_SHARDS = 100_000


def read_shards(path: str, cache: Path, *, labeled: bool = True) -> DatasetSplits:
    """Index the images of tar shards, without decoding them.

    A sample is an image and its label, an integer from 0: `0007.jpg` with `0007.cls`, or with
    `label` or `cls` in `0007.json`. Shards are in parts by their names (`train-000.tar`) or by
    the folders that they lie in; where none is named so, all are for training. As of class
    folders, `val` without `test` becomes the test split.

    Args:
        path: a folder, a tar, or a pattern of tars such as `train-{000..099}.tar` or `*.tar`. A
            file `classes.txt` in the folder names the classes, one a line.
        cache: where an index is kept that cannot be kept beside the shards.
        labeled: whether samples without a label are left out; otherwise they are kept, and labels
            stratify what is held out.

    Raises:
        DataError: no shard, a shard or sample that is not understood, or labels that leave a class
            out.
    """
    parts = find_shards(path)
    indices = {split: indexed(shards, cache) for split, shards in parts.items()}
    names = read_class_names(_folder(path)) if labeled else []
    remedy = "a sample is NAME.jpg and, right beside it, NAME.cls or NAME.json; NAME has no dot"
    notes = _notes(indices.values(), path)
    return packed_splits(indices, names, path, labeled=labeled, remedy=remedy, notes=notes)


def _notes(indices: Collection[ShardIndex], path: str) -> tuple[str, ...]:
    """Sentences on what is in the shards and is not read."""
    lacking = sum(index.without_image for index in indices)
    no_image = [f"samples without an image in {path} are left out: {lacking:,}"]
    kinds = sum((index.kinds for index in indices), Counter[str]())
    return (*(no_image if lacking else []), *passed_over_notes(kinds))


def find_shards(path: str, *, ending: str = ".tar", source: str = "wds") -> dict[str, list[Path]]:
    """The shards that a folder holds or a pattern names, by split, sorted.

    Args:
        path: see `read_shards`.
        ending: of their names.
        source: what the user wrote before the path.

    Raises:
        DataError: there is none, or their parts are not understood.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return _parts(_matching(str(folder)))
    inner = {f: _shards(f, ending) for f in subfolders(folder)}
    inner = {f: shards for f, shards in inner.items() if shards}
    own = _shards(folder, ending)
    if own and inner:
        raise DataError(
            f"there are shards both in {folder} and in {next(iter(inner))}; keep them in one way"
        )
    if not own and not inner:
        raise DataError(
            f"there is no shard ({ending}) in {path}; give {source}:FOLDER or a pattern such as "
            f"{source}:FOLDER/train-{{000..099}}{ending}"
        )
    if own:
        return _parts(own)
    folders = by_split(inner)
    if not folders:
        raise DataError(
            f"the folders of shards in {folder} ({', '.join(f.name for f in list(inner)[:3])}) are "
            "no parts by their names; call them train, val and test"
        )
    return {split: [s for f in fs for s in inner[f]] for split, fs in folders.items()}


def _folder(path: str) -> Path:
    """Where the names of the classes are: a folder, or that of the shards."""
    folder = Path(path).expanduser()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _shards(folder: Path, ending: str) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == ending and p.name[0] != ".")


def _parts(shards: Sequence[Path]) -> dict[str, list[Path]]:
    """Shards by what their names say; all are for training where no name says anything."""
    unclear = next((s for s in shards if len(parts_in_name(s.stem)) > 1), None)
    if unclear:
        named = " and ".join(sorted(parts_in_name(unclear.stem)))
        raise DataError(f"the shard {unclear} is named as {named}; rename it to say one part")
    return by_split(shards, _part_name) or {"train": list(shards)}


def _part_name(shard: Path) -> str:
    return next(iter(parts_in_name(shard.stem)), shard.name)


def _matching(pattern: str) -> list[Path]:
    """The files of a pattern with braces or wildcards, sorted."""
    texts = list(_expanded(pattern))
    shards: set[Path] = set()
    for text in texts:
        folder, name = os.path.split(text)
        if not _WILDCARDS.search(name):
            shards.add(Path(text))
        elif os.path.isdir(folder or "."):
            shards |= {p for p in Path(folder or ".").glob(name) if p.name[0] != "."}
    missing = sorted(shard for shard in shards if not shard.exists())
    if missing:
        beside = missing[0].parent
        siblings = (p.name for p in beside.iterdir()) if beside.is_dir() else ()
        count = f", one of {len(missing):,} that are missing" if len(missing) > 1 else ""
        hint = nearest(missing[0].name, siblings, list_all=False)
        raise DataError(f"there is no shard {missing[0]}{count}{hint}")
    if not shards:
        raise DataError(f"no file matches '{pattern}'; see what its folder holds")
    return sorted(shards)


def _expanded(pattern: str) -> Iterator[str]:
    """The texts of a pattern such as `{train,val}-{00..12}.tar`."""
    pieces, end = [], 0
    for match in _BRACES.finditer(pattern):
        pieces += [[pattern[end : match.start()]], _alternatives(match, pattern)]
        end = match.end()
    if math.prod(map(len, pieces)) > _MAX_SHARDS:
        raise DataError(f"'{pattern}' names more than {_MAX_SHARDS:,} shards; shorten its ranges")
    return map("".join, itertools.product(*pieces, [pattern[end:]]))


def _alternatives(match: re.Match[str], pattern: str) -> list[str]:
    first, last, listed = match.groups()
    if listed is not None:
        return list(listed.split(","))
    if len(first + last) > 20 or not 0 <= int(last) - int(first) < _MAX_SHARDS:
        raise DataError(
            f"the range {match[0]} in '{pattern}' is empty or too long; write it from the lower to "
            "the higher number"
        )
    zeros = any(len(end) > 1 and end[0] == "0" for end in (first, last))
    width = max(len(first), len(last)) if zeros else 0
    return [str(number).zfill(width) for number in range(int(first), int(last) + 1)]
