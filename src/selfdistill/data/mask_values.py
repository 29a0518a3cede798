"""Classes of masks: which value of a pixel means which class."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..core import IGNORE, DataError
from .text_files import check_class_names, read_class_names

_MAX_SHOWN = 12


class MaskClasses(NamedTuple):
    """Names of classes, and the mask value of each; both are empty where nothing names them."""

    names: list[str]
    values: list[int]


def read_mask_classes(path: Path) -> MaskClasses:
    """The classes of PATH/classes.txt: names from 0 on, line by line, or lines `VALUE: NAME`.

    Raises:
        DataError: the file cannot be read, a value or a name is there twice, or not all lines or
            none give a value.
    """
    lines = read_class_names(path)
    pairs = [(value.strip(), name.strip()) for value, _, name in (x.partition(":") for x in lines)]
    valued = [value.isdecimal() and bool(name) for value, name in pairs]
    if len(lines) > IGNORE:
        raise DataError(f"{path / 'classes.txt'} has {len(lines)} lines; 255 classes are the most")
    if not any(valued):
        return MaskClasses(lines, list(range(len(lines))))
    file = path / "classes.txt"
    values = [int(value) for value, _ in pairs] if all(valued) else []
    if len(set(values)) < len(lines) or max(values) > IGNORE:
        raise DataError(f"each line of {file} must be VALUE: NAME, with its own value of 0 … 255")
    names = [name for _, name in pairs]
    check_class_names(names, str(file))
    return MaskClasses(names, values)


def encode_masks(
    path: Path, masks: Mapping[str, Tensor], classes: MaskClasses, ignore_index: int | None
) -> list[str]:
    """Turn the values of masks into classes, in place.

    Args:
        path: the folder, for messages.
        masks: (N, H, W) uint8 by split.
        classes: which values are classes.
        ignore_index: a value that is no class, besides 255 where the classes do not have it.

    Returns:
        The names of the classes.

    Raises:
        DataError: a value is of no class, the training masks have fewer than two classes, or the
            others have one that they lack.
    """
    counts = {split: _histogram(values) for split, values in masks.items()}
    present = {split: set(n.nonzero().flatten().tolist()) for split, n in counts.items()}
    ignored = {IGNORE} - set(classes.values)
    if ignore_index is not None:
        ignored.add(ignore_index)
    used = set().union(*present.values())
    names, values = classes if classes.names else _numbered(path, used, ignored)
    if stray := sorted(used - ignored - set(values)):
        raise DataError(
            f"a mask in {path} has the class {stray[-1]} and there are {len(names)} classes; "
            f"name it in classes.txt, or give ignore_index={stray[-1]} if it is no class"
        )
    _check_splits(path, present, dict(zip(values, names, strict=True)), ignored)
    code = torch.full((IGNORE + 1,), IGNORE, dtype=torch.uint8)
    code[torch.tensor(values)] = torch.arange(len(values), dtype=torch.uint8)
    code[[value for value in ignored if value < len(code)]] = IGNORE
    for split in masks.values():
        for mask in split:  # one at a time, as an index is of eight bytes
            mask.copy_(code[mask.long()])
    return names


def _histogram(masks: Tensor) -> Tensor:
    counts = torch.zeros(IGNORE + 1, dtype=torch.int64)
    for mask in masks:
        counts += torch.bincount(mask.flatten(), minlength=IGNORE + 1)
    return counts


def _numbered(path: Path, used: set[int], ignored: set[int]) -> tuple[list[str], list[int]]:
    """Classes numbered up to the largest value that is used.

    Raises:
        DataError: values are missing below it, so that they are a coding of another kind.
    """
    values = sorted(used - ignored)
    file = path / "classes.txt"
    if used == {0, IGNORE} and IGNORE in ignored:
        raise DataError(
            f"the masks in {path} hold 0 and 255 alone, and 255 is no class, so nothing is left to "
            f"learn; if 255 is the object, write {file} with the lines '0: background' and "
            "'255: object'"
        )
    if values != list(range(len(values))):
        shown = ", ".join(map(str, values[:_MAX_SHOWN])) + ", …" * (len(values) > _MAX_SHOWN)
        raise DataError(
            f"the masks in {path} hold the values {shown}, which do not count classes from 0; "
            f"write {file} with a line 'VALUE: NAME' for each, and give --ignore-index VALUE for "
            "one that is none"
        )
    return [str(value) for value in values], values


def _check_splits(
    path: Path, present: Mapping[str, set[int]], names: Mapping[int, str], ignored: set[int]
) -> None:
    train = present["train"] - ignored
    if len(train) < 2:
        only = f"the one class '{names[min(train)]}'" if train else "no class"
        raise DataError(
            f"the training masks in {path} hold {only} and nothing else, so nothing is left to "
            f"learn ({', '.join(map(str, sorted(ignored)))} is no class)"
        )
    for split, values in present.items():
        if unknown := sorted(values - ignored - train):
            raise DataError(
                f"the class '{names[unknown[0]]}' is in masks of the {split} part of {path} and in "
                "no training mask; move some there, or leave it out by "
                f"--ignore-index {unknown[0]}"
            )
