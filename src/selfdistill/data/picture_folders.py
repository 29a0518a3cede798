"""Folders of pictures whose labels are not read, or which have none."""

import os
from pathlib import Path

import torch

from ..core import DataError
from .class_folders import RESIZE_RATIO, SIZE, pictures_in
from .images import ImageFiles
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
    named = [folder for folder in subfolders(path) if split_of_name(folder.name)]
    whole = not any(split_of_name(folder.name) == "train" for folder in named)
    parts = {"train": path} if whole else single(by_split(named))
    listing = Listing()
    splits = {split: _pictures(folder, listing) for split, folder in parts.items()}
    val, test = promote_val_to_test(splits.get("val"), splits.get("test"))
    notes = (*([] if whole else _beside(path, parts)), *listing.notes())
    return DatasetSplits(splits["train"], val, test, [], flip=True, notes=notes)


def _pictures(folder: Path, listing: Listing) -> ImageFiles:
    """The pictures in a folder and then, folder by folder as they are sorted, those below."""
    (paths,) = listing.class_images([folder])
    if not paths:
        raise DataError(
            f"there is no picture in {folder} or below; pictures are files with one of "
            f"{', '.join(EXTENSIONS)}"
        )
    owners = {path: _first_folder(path, folder) for path in paths}
    numbers = {name: number for number, name in enumerate(sorted(set(owners.values())))}
    paths = sorted(paths, key=lambda path: (owners[path], path))
    strata = torch.tensor([numbers[owners[path]] for path in paths])
    return ImageFiles(paths, Unlabeled(strata), (SIZE, SIZE), RESIZE_RATIO)


def _first_folder(path: str, folder: Path) -> str:
    """The folder right below that a picture lies in, "" of one that lies in none."""
    first, inside, _ = os.path.relpath(path, folder).partition(os.sep)
    return first if inside else ""


def _beside(path: Path, parts: dict[str, Path]) -> list[str]:
    others = [f.name for f in subfolders(path) if f not in parts.values()]
    loose = sum(1 for _ in pictures_in(path))
    left_out = [*others[:3], *(["…"] if len(others) > 3 else [])]
    left_out += [f"{loose:,} pictures"] if loose else []
    return [f"beside the parts, {path} holds {', '.join(left_out)}, left out"] if left_out else []
