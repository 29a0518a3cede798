"""Folders of pictures whose labels are not read, or which have none."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..core import DataError
from .class_folders import RESIZE_RATIO, SIZE, pictures_in
from .file_paths import FilePaths
from .images import ImageFiles
from .kept_listing import ListedImages, listed_images
from .listing import Listing, subfolders
from .open_image import EXTENSIONS
from .parts import by_split, single, split_of_name
from .splits import DatasetSplits, check_folder, promote_val_to_test
from .targets import Unlabeled


def read_picture_folder(path: Path) -> DatasetSplits:
    """List all pictures in and below a folder, without decoding them.

    Where PATH holds `train`, and maybe `val` and `test` (or other usual names, see
    `split_of_name`), these are the parts, as of folders of classes. What other folders are called
    means nothing, and stratifies what is held out: of folders of classes the same images are held
    out as for training by labels.

    Raises:
        DataError: no folder, or no picture in a part.
    """
    check_folder(path)
    listed = listed_images(path, "pictures in parts", lambda listing: _listed(path, listing))
    splits = {
        split: ImageFiles(
            paths, Unlabeled(torch.from_numpy(folders).long()), (SIZE, SIZE), RESIZE_RATIO
        )
        for split, (paths, folders) in listed.parts.items()
    }
    val, test = promote_val_to_test(splits.get("val"), splits.get("test"))
    return DatasetSplits(splits["train"], val, test, [], flip=True, notes=listed.notes)


def _listed(path: Path, listing: Listing) -> ListedImages:
    """The pictures of all parts with the numbers of their folders."""
    named = [folder for folder in listing.subfolders(path) if split_of_name(folder.name)]
    whole = not any(split_of_name(folder.name) == "train" for folder in named)
    parts = {"train": path} if whole else single(by_split(named))
    splits = {split: _pictures(folder, listing) for split, folder in parts.items()}
    notes = (*([] if whole else _beside(path, parts)), *listing.notes())
    return ListedImages([], splits, notes)


def _pictures(folder: Path, listing: Listing) -> tuple[FilePaths, npt.NDArray[np.int32]]:
    """The pictures in a folder and then, folder by folder as they are sorted, those below."""
    paths, _ = listing.class_images([folder])
    if not len(paths):
        raise DataError(
            f"there is no picture in {folder} or below; pictures are files with one of "
            f"{', '.join(EXTENSIONS)}"
        )
    names = [_first_folder(inner, folder) for inner in paths.folders]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    strata = np.array([numbers[name] for name in names], np.int32)[paths.owners]
    order = strata.argsort(kind="stable")
    return paths.take(order), strata[order]


def _first_folder(inner: str, folder: Path) -> str:
    """The folder right below that `inner` is or lies in, "" of the folder itself."""
    first = os.path.relpath(inner, folder).partition(os.sep)[0]
    return "" if first == os.curdir else first


def _beside(path: Path, parts: dict[str, Path]) -> list[str]:
    others = [f.name for f in subfolders(path) if f not in parts.values()]
    loose = sum(1 for _ in pictures_in(path))
    left_out = [*others[:3], *(["…"] if len(others) > 3 else [])]
    left_out += [f"{loose:,} pictures"] if loose else []
    return [f"beside the parts, {path} holds {', '.join(left_out)}, left out"] if left_out else []
