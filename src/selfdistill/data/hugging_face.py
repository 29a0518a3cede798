"""Images in a data set of Hugging Face's `datasets`, read by row from memory-mapped Arrow."""

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import DataError
from ..core.extras import require
from .packed_images import NO_LABEL, ImagePack, Rows
from .packed_splits import packed_splits
from .parts import by_split, single
from .shards import find_shards
from .splits import DatasetSplits

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "cls", "class", "target")
_NO_BYTES = -1
_CONFIGURATION = "*/*/*"  # below the folder of a data set in the cache: name, version and hash


class ImageColumn(ImagePack):
    """The encoded images of a column.

    Args:
        name: of the data set and the part.
        column: of Arrow, bytes or structures of `bytes` and `path`.
        labels: (N,) int64.
    """

    def __init__(self, name: str, column: Any, labels: npt.NDArray[np.int64]) -> None:
        import pyarrow as pa  # which datasets brings
        import pyarrow.compute as pc

        self._name, self._column, self._labels = name, column, labels
        is_struct = pa.types.is_struct(column.type)
        self._paths = pc.struct_field(column, "path") if is_struct else None

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) int64."""
        return self._labels

    def read(self, row: int) -> bytes:
        """The bytes of one image file."""
        content, path = self._cell(row)
        if content is None:
            if not path or not os.path.isfile(path):
                raise OSError("neither its bytes nor a file of it are there")
            content = Path(path).read_bytes()
        return content

    def name(self, row: int) -> str:
        """Data set, part and number of an image, and its file where that is known."""
        path = self._path(row)
        return f"{self._name}, row {row}{f' ({path})' if path else ''}"

    def num_bytes(self, row: int) -> int:
        """How many bytes an image file has."""
        length = int(self._lengths[row])
        return _file_size(self._path(row)) if length == _NO_BYTES else length

    def identities(self, rows: Rows) -> Iterator[bytes]:
        """Name, where there is one, and size of each; no image is read."""
        for row in rows.tolist():
            yield os.fsencode(os.path.basename(self._path(row))) + b"/%d" % self.num_bytes(row)

    def _path(self, row: int) -> str:
        return "" if self._paths is None else self._paths[row].as_py() or ""

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int64]:
        """Bytes of each image (N,), which Arrow has apart; `_NO_BYTES` where there are none."""
        import pyarrow.compute as pc

        content = self._column if self._paths is None else pc.struct_field(self._column, "bytes")
        lengths = pc.fill_null(pc.cast(pc.binary_length(content), "int64"), _NO_BYTES)
        return np.asarray(lengths.to_numpy())

    def _cell(self, row: int) -> tuple[bytes | None, str | None]:
        value = self._column[row].as_py()
        if isinstance(value, Mapping):
            return value.get("bytes"), value.get("path")
        return value, None


def _file_size(path: str) -> int:
    return os.stat(path).st_size if os.path.isfile(path) else 0


def read_hugging_face(name: str, *, labeled: bool = True) -> DatasetSplits:
    """Open a data set of `datasets` without reading its images; never from the network.

    Args:
        name: a folder that `save_to_disk` wrote, a folder, file or pattern of parquet files (their
            parts are called as those of shards), or the name of a set in the local cache.
        labeled: see `packed_splits`.

    Raises:
        DataError: there is no such data set, or none of images with one integer label each.
        MissingExtraError: `datasets` is not installed.
    """
    library = require("datasets", extra="hf", purpose=f"the data set hf:{name}")
    library.disable_progress_bars()
    try:
        parts = _parts(library, name)
    except DataError:
        raise
    except Exception as error:  # of any kind, by what is broken
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise DataError(f"cannot read hf:{name} ({reason}); save or copy it anew") from None
    image = _image_column(library, name, parts["train"])
    label = _label_column(library, name, parts["train"], labeled)
    names = getattr(parts["train"].features[label], "names", None) if label else None
    packs = {}
    for split, part in parts.items():
        lacking = {image, *([label] if label else [])} - set(part.column_names)
        if lacking:
            raise DataError(
                f"the {split} part of hf:{name} has no column '{min(lacking)}' and the training "
                "part has; give all parts the same columns"
            )
        labels = _labels(part, label, f"the {split} part of hf:{name}")
        packs[split] = ImageColumn(f"hf:{name} {split}", part.data.column(image), labels)
    remedy = "each row is to have an image and an integer from 0"
    return packed_splits(packs, names or [], f"hf:{name}", labeled=labeled, remedy=remedy)


def _parts(library: ModuleType, name: str) -> dict[str, Any]:
    """The `datasets.Dataset` of each split."""
    path = Path(name).expanduser()
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        saved = library.load_from_disk(str(path))
        return _by_split(name, saved if isinstance(saved, dict) else {"train": saved})
    if path.exists() or path.suffix == ".parquet" or set(name) & set("{*?"):
        files = find_shards(name, ending=".parquet", source="hf")
        return {
            split: library.Dataset.from_parquet(list(map(str, part)), split=split)
            for split, part in files.items()
        }
    return _by_split(name, _cached(library, name))


def _by_split(name: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Parts by the usual names of theirs."""
    named = single(by_split(map(Path, stored))) or {"train": Path(next(iter(stored)))}
    if len(named) < len(stored):
        raise DataError(
            f"the parts of hf:{name} are called {', '.join(stored)}; call them train, validation "
            "and test"
        )
    return {split: stored[str(part)] for split, part in named.items()}


def _cached(library: ModuleType, name: str) -> dict[str, Any]:
    """The parts of a data set that `datasets.load_dataset` has left in its cache."""
    owner, _, base = name.rpartition("/")
    cache = Path(library.config.HF_DATASETS_CACHE).expanduser()
    snake = library.naming.camelcase_to_snakecase(base)
    folder = cache / (f"{owner}___{snake}" if owner else snake)
    known = [f.parent for f in folder.glob(f"{_CONFIGURATION}/dataset_info.json")]
    if not known or "/" in owner:
        raise DataError(
            f"there is neither a folder {name} nor a data set of that name in {cache}, and none is "
            f"downloaded here; in Python, datasets.load_dataset('{name}') fetches it"
        )
    if len(known) > 1:
        names = ", ".join(sorted(str(f.relative_to(folder)) for f in known))
        raise DataError(
            f"hf:{name} is in the cache in several forms ({names}); write one by save_to_disk, and "
            "give that folder"
        )
    parts = {}
    for split in library.DatasetInfo.from_directory(str(known[0])).splits:
        files = [*known[0].glob(f"*-{split}.arrow"), *known[0].glob(f"*-{split}-*-of-*.arrow")]
        pieces = [library.Dataset.from_file(str(file)) for file in sorted(files)]
        parts[split] = library.concatenate_datasets(pieces)
    return parts


def _image_column(library: ModuleType, name: str, train: Any) -> str:
    def is_image(feature: Any) -> bool:
        if isinstance(feature, dict):  # what an image is without its type
            return set(feature) == {"bytes", "path"}
        binary = getattr(feature, "dtype", "") in ("binary", "large_binary")
        return isinstance(feature, library.Image) or binary

    columns = [column for column, feature in train.features.items() if is_image(feature)]
    return _one(name, train, columns, _IMAGE_NAMES, "images")


def _label_column(library: ModuleType, name: str, train: Any, labeled: bool) -> str | None:
    features = train.features
    columns = [c for c, feature in features.items() if isinstance(feature, library.ClassLabel)]
    columns = columns or [column for column in features if column.lower() in _LABEL_NAMES]
    if not columns and not labeled:
        return None
    column = _one(name, train, columns, _LABEL_NAMES, "labels")
    kind = str(getattr(features[column], "dtype", "lists"))
    if not kind.startswith(("int", "uint")):
        raise DataError(
            f"the column '{column}' of hf:{name} holds {kind}; labels are integers from 0, which "
            f"class_encode_column('{column}') makes of names"
        )
    return column


def _one(name: str, train: Any, columns: list[str], usual: tuple[str, ...], what: str) -> str:
    """The one column that is meant: the only one, or the only one of the usual name."""
    named = [column for column in columns if column.lower() in usual]
    if len(columns) == 1 or len(named) == 1:
        return (named or columns)[0]
    if not columns:
        have = ", ".join(train.column_names[:5])
        raise DataError(
            f"hf:{name} has no column of {what} among {have}; rename_column makes it '{usual[0]}'"
        )
    raise DataError(
        f"hf:{name} has several columns of {what}: {', '.join(columns[:5])}; name the one that is "
        f"meant '{usual[0]}' by rename_column"
    )


def _labels(part: Any, column: str | None, where: str) -> npt.NDArray[np.int64]:
    """The numbers of a column; `NO_LABEL` where there is none."""
    if column is None:
        return np.full(len(part), NO_LABEL, np.int64)
    stored = part.data.column(column)
    if not str(stored.type).startswith(("int", "uint")):
        raise DataError(f"the column '{column}' in {where} holds {stored.type}; give it integers")
    labels = np.asarray(stored.fill_null(NO_LABEL).to_numpy()).astype(np.int64)
    if len(labels) and labels.min() < NO_LABEL:
        raise DataError(f"{where} has the label {labels.min()}; labels count from 0")
    return labels
