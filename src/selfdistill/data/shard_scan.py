"""Samples in a tar shard: files that follow one another, called alike up to their first dot.

So has them WebDataset (https://github.com/webdataset/webdataset).
"""

import hashlib
import itertools
import json
import os
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..core import DataError
from .listing import QUIET
from .open_image import EXTENSIONS
from .packed_images import NO_LABEL

COLUMNS = {"offset": "q", "size": "q", "label": "q", "identity": "Q"}
"""Type codes of what is known of each image, see `ShardIndex`."""
_BLOCK = tarfile.BLOCKSIZE
_MAX_LABEL = 2**31
_MAX_LABEL_BYTES = 1 << 20
_MAX_END = 1 << 20  # zeros behind the last file: usual are 10 KB
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\3\4": "zip",
}


class Scan(NamedTuple):
    """What a shard holds.

    Attributes:
        columns: of its images, see `ShardIndex`.
        kinds: number of files that were passed over, by ending.
        without_image: number of samples.
    """

    columns: "dict[str, array[int]]"  # array takes no brackets before 3.12
    kinds: Counter[str]
    without_image: int


def scan(shard: Path) -> Scan:
    """Find the images of a shard and their labels.

    Raises:
        DataError: it is no plain tar or cut off, or a sample is not understood.
    """
    columns = {name: array(code) for name, code in COLUMNS.items()}
    kinds, without_image = Counter[str](), 0
    try:
        _refuse_other_files(shard)
        with tarfile.open(shard, "r:", errorlevel=2) as tar:
            for key, files in itertools.groupby(_members(tar), _key):
                sample = _Sample(shard, tar, key, list(files), kinds)
                if sample.image is None:
                    without_image += 1
                    continue
                columns["offset"].append(sample.image.offset_data)
                columns["size"].append(sample.image.size)
                columns["label"].append(sample.label())
                columns["identity"].append(_hash(sample.image.name))
            _check_end(tar)
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            f"cannot read the shard {shard} ({reason}); make or copy it anew, as a plain tar"
        ) from None
    return Scan(columns, kinds, without_image)


def _refuse_other_files(shard: Path) -> None:
    if not shard.is_file():
        raise OSError("no regular file")
    with shard.open("rb") as file:
        start = file.read(8)
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise DataError(
                f"the shard {shard} is compressed ({name}), so that no image in it can be read by "
                "itself; unpack it and make a plain tar (images are compressed already)"
            )


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files in a tar, without hidden ones."""
    end = -1
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
        if member.size < 0 or tar.offset <= end:  # a crafted one would be read for ever
            raise tarfile.ReadError(f"the size of {member.name} is wrong")
        end = tar.offset
        if member.isreg() and not os.path.basename(member.name).startswith("."):
            yield member


def _check_end(tar: tarfile.TarFile) -> None:
    """Raises `ReadError` where a tar is cut off or goes on, which tarfile passes over."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    end = tar.fileobj.read(_MAX_END)
    if len(end) < _BLOCK:
        raise tarfile.ReadError("it is cut off: its end is missing")
    if end.count(0) < len(end):
        raise tarfile.ReadError(f"it is damaged at byte {tar.offset:,}, or goes on behind its end")


def _key(member: tarfile.TarInfo) -> str:
    folder, name = os.path.split(member.name)
    return os.path.join(folder, name.partition(".")[0])


def _hash(name: str) -> int:
    digest = hashlib.blake2b(os.fsencode(name.removeprefix("./")), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


class _Sample:
    """The files of one name: an image, and the label in CLS or JSON.

    Raises:
        DataError: there are two images, or two files for the label.
    """

    def __init__(
        self,
        shard: Path,
        tar: tarfile.TarFile,
        key: str,
        files: Sequence[tarfile.TarInfo],
        kinds: Counter[str],
    ) -> None:
        self.name, self._tar = f"'{key}' in {shard}", tar
        self.image: tarfile.TarInfo | None = None
        self._label_files: dict[str, tarfile.TarInfo] = {}
        for file in files:
            ending = os.path.basename(file.name).partition(".")[2].lower()
            ending = f".{ending}" if ending else ""
            if ending in EXTENSIONS:
                if self.image:
                    names = (os.path.basename(f.name) for f in (self.image, file))
                    raise DataError(
                        f"the sample {self.name} has two images, {' and '.join(names)}; keep one "
                        "in each sample"
                    )
                self.image = file
            elif ending in (".cls", ".json"):
                if ending in self._label_files:
                    raise DataError(f"the sample {self.name} has two {ending} files; keep one")
                self._label_files[ending] = file
            elif not ending.endswith(QUIET):
                kinds[ending or "no ending"] += 1

    def label(self) -> int:
        """The number in CLS or, without one, in JSON; `NO_LABEL` if there is none.

        Raises:
            DataError: it is no integer from 0.
        """
        value: Any = None
        if file := self._label_files.get(".cls"):
            value = self._read(file).decode("utf-8", "replace").strip()
            if value.isascii() and value.isdecimal() and len(value) < 12:
                value = int(value)
        elif file := self._label_files.get(".json"):
            try:
                content = json.loads(self._read(file))
            except (ValueError, RecursionError):
                raise DataError(f"the .json of the sample {self.name} is no JSON") from None
            fields = content if isinstance(content, dict) else {}
            value = fields.get("label", fields.get("cls"))
        if value is None:
            return NO_LABEL
        if type(value) is not int or not 0 <= value < _MAX_LABEL:
            raise DataError(
                f"the label of the sample {self.name} is {str(value)[:40]!r}; labels are integers "
                "that count from 0"
            )
        return value

    def _read(self, file: tarfile.TarInfo) -> bytes:
        assert self._tar.fileobj is not None
        self._tar.fileobj.seek(file.offset_data)
        return self._tar.fileobj.read(min(file.size, _MAX_LABEL_BYTES))
