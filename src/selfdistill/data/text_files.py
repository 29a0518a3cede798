"""Text files of a data set, and the names of its classes."""

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..core import DataError

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_MAX_BYTES = 64 << 20  # of lists, labels and settings


def read_bytes(file: Path, max_bytes: int = _MAX_BYTES) -> bytes:
    """The content of a regular file, without a byte order mark.

    Raises:
        DataError: it is missing, no regular file, or larger than `max_bytes`.
    """
    try:
        if not file.is_file():
            reason = "no regular file" if file.exists() else "there is none"
        elif file.stat().st_size > max_bytes:
            reason = f"it has more than {max_bytes >> 20:,} MiB"
        else:
            return file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        reason = error.strerror or str(error)
    raise DataError(f"cannot read {file} ({reason})")


def read_text(file: Path, max_bytes: int = _MAX_BYTES) -> str:
    """The content of a text file in UTF-8.

    Raises:
        DataError: as `read_bytes`, or it is no UTF-8.
    """
    try:
        return read_bytes(file, max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"cannot read {file} (byte {error.start} is not UTF-8); save it as UTF-8"
        ) from None


def read_lines(file: Path) -> list[str]:
    """The lines of a text file that are not empty, without the space around them."""
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]


def read_class_names(path: Path) -> list[str]:
    """Class names, one a line of PATH/classes.txt; an empty list without such a file.

    Raises:
        DataError: the file cannot be read, or a name is there twice.
    """
    file = path / "classes.txt"
    names = read_lines(file) if os.path.lexists(file) else []
    check_class_names(names, str(file))
    return names


def check_class_names(names: Sequence[str], source: str) -> tuple[str, ...]:
    """Notes on class names that differ in case or in the form of their signs alone.

    Raises:
        DataError: a name is empty, no UTF-8, or that of two classes.
    """
    spellings: dict[str, str] = {}
    notes = []
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError(
                f"the name of the class {name!a} in {source} is not UTF-8; rename it"
            ) from None
        if not name.strip():
            raise DataError(f"a class in {source} has an empty name; name it")
        key = unicodedata.normalize("NFKC", name).casefold()
        key = str(float(key)) if _NUMBER.fullmatch(key) else key
        if spellings.get(key) == name:
            raise DataError(f"two classes in {source} are called '{name}'; rename or join them")
        if key in spellings:
            notes.append(
                f"the classes '{spellings[key]}' and '{name}' differ in their spelling alone and "
                "are told apart; join them if they are one"
            )
        spellings.setdefault(key, name)
    return tuple(notes)


def numbered_classes(
    labels: Tensor, names: Sequence[str], source: object, owner: str, list_name: str
) -> list[str]:
    """Names of the classes of training labels that count from 0, each with an image.

    Args:
        labels: (N,) int64, not negative.
        names: of the classes; none are given where they are called by their numbers.
        source: where the labels are.
        owner: what has the labels there.
        list_name: what the names are called there.

    Raises:
        DataError: there is one label only, one without an image, or one beyond the names.
    """
    present = labels.unique().tolist()
    count = len(names) or present[-1] + 1
    if present[-1] >= count:
        raise DataError(
            f"{owner} in {source} has the label {present[-1]}; the {count} {list_name} allow "
            f"0 … {count - 1}"
        )
    if len(present) < 2:
        raise DataError(
            f"all training images in {source} have one label; two classes are the least"
        )
    if len(present) < count:
        gap = next((i for i, label in enumerate(present) if i != label), len(present))
        shown = f"'{names[gap]}' (label {gap})" if names else str(gap)
        raise DataError(
            f"class {shown} has no training image in {source}; number the labels without gaps"
        )
    return list(names) or [str(i) for i in range(count)]
