"""Tables of pictures and their classes, as CSV or JSON Lines files."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from ..core import DataError, nearest
from .class_folders import RESIZE_RATIO, SIZE
from .file_paths import FilePaths
from .images import ImageFiles
from .label_columns import Columns, class_names, label_columns, part_column, read_columns
from .listing import subfolders
from .named_pictures import ANY, PATHS, NamedPictures
from .parts import (
    SPLITS,
    by_split,
    may_lack_training,
    only_part,
    parts_in_name,
    single,
    split_of_name,
)
from .splits import DatasetSplits, promote_val_to_test

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")


class _Part(NamedTuple):
    """Rows that are one part of the set, and the pictures that a column of them names."""

    file: Path
    columns: Columns
    pictures: NamedPictures
    column: str
    spelling: int


def read_label_table(file: Path) -> DatasetSplits:
    """Read which class each picture has from a table, without decoding a picture.

    One column names pictures in or below the table's folder (see `NamedPictures`), another their
    classes: it is called `label`, `class`, `category` or `target`, or is the only other one; or
    there is one column of 0 and 1 for each class. Parts are those of a column `split`, or of tables
    that are named as parts, side by side (`train.csv`, `val.csv`) or each in the folder of its part
    (`train/metadata.csv`, `train/metadata.jsonl`). A part without classes is left out, and as with
    class folders `val` without `test` becomes the test split.

    Raises:
        DataError: no such table, columns that are not understood, a picture that is missing or has
            two classes, or a class that the training rows lack.
    """
    parts, part_name = _parts(file)
    train = parts["train"]
    others = [name for name in train.columns if name not in (train.column, part_name)]
    columns = label_columns(train.columns, others, train.file)
    labels = {
        split: columns.labels(part.columns)
        for split, part in parts.items()
        if set(columns.names) <= set(part.columns)
    }
    labels = {split: given for split, given in labels.items() if split == "train" or any(given)}
    source = f"the column '{columns.names[0]}'" if len(columns.names) == 1 else "the columns"
    classes = class_names(labels["train"], f"{source} of {train.file}")
    notes = [f"classes are those in {source} of {train.file}"] if columns.guessed else []
    splits = {s: _images(parts[s], labels[s], classes, notes) for s in labels}
    notes += [
        f"{f'the {s} part of ' * bool(part_name)}{parts[s].file} has no classes and is left out"
        for s in parts
        if s not in splits
    ]
    notes += _left_out(parts, splits)
    val, test = promote_val_to_test(splits.get("val"), splits.get("test"))
    return DatasetSplits(splits["train"], val, test, classes, flip=True, notes=tuple(notes))


def _parts(file: Path) -> tuple[dict[str, _Part], str | None]:
    """The rows of each part, and the column that tells them apart if one table holds all."""
    tables = _tables(file)
    columns = {split: read_columns(table) for split, table in tables.items()}
    name = part_column(columns["train"], file) if len(tables) == 1 else None
    if name:
        columns = _by_column(columns["train"], name)
        if "train" not in columns and not may_lack_training():
            raise DataError(f"no row of {file} is for training by its column '{name}'; add some")
        columns = columns if "train" in columns else {"train": only_part(columns)}
    listed = cache(NamedPictures)  # several parts may lie in one folder
    parts = {
        split: _part(tables.get(split, file), split, part, listed)
        for split, part in columns.items()
    }
    return parts, name


def _tables(file: Path) -> dict[str, Path]:
    """The table of each part: those named as parts beside it or in folders of parts, or itself."""
    if file.is_file() and _part_and_rest(file.stem):
        return _tables_beside(file)
    if split_of_name(file.parent.name):
        folders = (f for f in subfolders(file.parent.parent) if split_of_name(f.name))
        alike = (f / file.name for f in folders if (f / file.name).is_file())
        return single(by_split(alike, lambda table: table.parent.name))
    return {"train": file}


def _tables_beside(file: Path) -> dict[str, Path]:
    """The tables that are named as a table is but for the part, first those of its own form."""
    _, rest = _part_and_rest(file.stem) or ("", ())
    tables: dict[str, Path] = {}
    for suffixes in ((file.suffix,), _SUFFIXES):
        alike: dict[str, list[Path]] = {}
        for table in sorted(file.parent.iterdir()):
            fits = table.suffix in suffixes and table.is_file()
            named = _part_and_rest(table.stem) if fits else None
            if named and named[1] == rest and named[0] not in tables:
                alike.setdefault(named[0], []).append(table)
        tables |= single(alike)
    return tables if "train" in tables else {"train": only_part(tables)}


def _part_and_rest(stem: str) -> tuple[str, tuple[str, ...]] | None:
    """The part that a file's name tells, as `train_labels.csv` does, and its other words."""
    if part := split_of_name(stem):
        return part, ()
    names = re.split(r"[^a-z0-9]+", stem.casefold())
    parts = [part for name in names if (part := split_of_name(name))]
    rest = tuple(name for name in names if not split_of_name(name))
    return (parts[0], rest) if len(parts) == 1 else None


def _by_column(columns: Columns, name: str) -> dict[str, Columns]:
    owners = [split_of_name(cell.strip()) for cell in columns[name]]
    rows = {split: [i for i, owner in enumerate(owners) if owner == split] for split in SPLITS}
    return {
        split: {column: [cells[i] for i in chosen] for column, cells in columns.items()}
        for split, chosen in rows.items()
        if chosen
    }


def _part(
    file: Path, split: str, columns: Columns, listed: Callable[[Path], NamedPictures]
) -> _Part:
    """A part with the column that names pictures, by paths from the table or by names.

    Names are looked for in a folder of this part first, since others may have pictures of the same
    names.
    """
    wanted = parts_in_name(file.stem) or {split}
    own = [folder for folder in subfolders(file.parent) if parts_in_name(folder.name) == wanted]
    for folder, limit in ((file.parent, PATHS), *((f, ANY) for f in own), (file.parent, ANY)):
        pictures = listed(folder)
        spellings = {name: pictures.spelling(cells, limit) for name, cells in columns.items()}
        candidates = [
            (spelling, -len(set(columns[name])), name)
            for name, spelling in spellings.items()
            if spelling is not None
        ]
        if candidates:
            spelling, _, column = min(candidates, key=lambda one: one[:2])
            return _Part(file, columns, pictures, column, spelling)
    cells = ", ".join(f"'{cells[0]}'" for cells in list(columns.values())[:3])
    raise DataError(
        f"no column of {file} names pictures in {file.parent} (its first row has {cells}); put the "
        "table into the folder that holds them"
    )


def _images(part: _Part, labels: list[str], classes: list[str], notes: list[str]) -> ImageFiles:
    """The pictures of a part, sorted by their paths, whatever the order of the rows."""
    known = {name: label for label, name in enumerate(classes)}
    label_of: dict[str, int] = {}
    missing: list[str] = []
    elsewhere: list[str] = []
    cells = part.columns[part.column]
    for cell, name in zip(cells, labels, strict=True):
        path = part.pictures.find(cell, part.spelling)
        if not name:
            raise DataError(f"{part.file} gives '{cell}' no class; fill it in or remove the row")
        if name not in known:
            raise DataError(
                f"{part.file} gives '{cell}' the class '{name}', which the training rows lack"
                f"{nearest(name, classes)}"
            )
        if path is None:
            missing.append(cell)
        elif not path:
            raise DataError(
                f"several pictures in {part.pictures.folder} are called '{cell}', as {part.file} "
                "has it; write their paths from that folder into the table"
            )
        elif label_of.setdefault(path, known[name]) != known[name]:
            raise DataError(f"{part.file} gives '{cell}' two classes; remove one of the rows")
        elif part.spelling >= PATHS and part.pictures.is_elsewhere(cell, path):
            elsewhere.append(f"'{cell}' is {path}")
    if missing:
        raise DataError(
            f"of the pictures that {part.file} names {len(missing):,} are not in "
            f"{part.pictures.folder} (the first is '{missing[0]}'); add them or remove their rows"
        )
    if elsewhere:
        notes.append(
            f"pictures that {part.file} has at another place are found by their names alone: "
            f"{len(elsewhere):,} ({elsewhere[0]})"
        )
    if twice := len(cells) - len(label_of):
        notes.append(f"rows of {part.file} that name a picture once more are left out: {twice:,}")
    paths = sorted(label_of)
    numbers = torch.tensor([label_of[path] for path in paths])
    return ImageFiles(FilePaths.of(paths), numbers, (SIZE, SIZE), RESIZE_RATIO)


def _left_out(parts: Mapping[str, _Part], splits: Mapping[str, ImageFiles]) -> list[str]:
    """Notes on pictures that are in no row with a class."""
    folders = {part.pictures.folder: part.pictures for part in parts.values()}
    counts = {folder: len(pictures.paths) for folder, pictures in folders.items()}
    for split, images in splits.items():
        counts[parts[split].pictures.folder] -= len(images)
    return [
        f"pictures in {folder} without a class are left out: {count:,}"
        for folder, count in counts.items()
        if count > 0  # a picture may be in two parts
    ]
