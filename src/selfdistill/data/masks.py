"""Pictures with a mask each, in folders `images` and `masks`."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..core import IGNORE, DataError
from .class_folders import IMAGENET, common_size
from .images import Folder, Resident, unreadable
from .splits import Parts, last_word, listed_names
from .targets import Masks

ZOOM = 2.0  # the custom for scenes: from half to twice the size
_LARGEST = 16 << 30  # bytes of decoded pictures
_SIZE = 256  # where pictures differ in size and none is asked for
Files = dict[str, tuple[list[Path], list[Path]]]


def read(path: Path, *, image_size: int | None = None, ignore: int | None = None) -> Parts:
    """Read PATH/images and PATH/masks, or the same below PATH/train, PATH/val and PATH/test.

    With `train` and `val` alone, `val` becomes the test part, as in class folders.

    A mask is a picture of one channel (or with a palette, as VOC has them) and of its image's size
    and name; the value of a pixel is its class, counted from 0. Names of the classes stand line by
    line in PATH/classes.txt; without it they are numbered up to the largest value that occurs.

    Args:
        path: the folder.
        image_size: side to bring all pictures to; none keeps a common size and brings pictures of
            different sizes to 256 × 256.
        ignore: a value that is no class, besides 255.

    Raises:
        DataError: no such folder, a picture without a mask or the other way round, sizes or values
            that do not fit.
    """
    return paired(path, _files(path), listed_names(path), image_size, ignore)


def recognized(path: Path) -> bool:
    """Whether there are images and masks."""
    inner = path / "train" if (path / "train").is_dir() else path
    return (inner / "images").is_dir() and (inner / "masks").is_dir()


def paired(
    path: Path, files: Files, names: list[str], image_size: int | None, ignore: int | None
) -> Parts:
    """Parts from lists of pictures and masks; `names` may be empty."""
    size = _common(files, image_size)
    found = {part: _part(*pair, size, ignore) for part, pair in files.items()}
    used = max(int(_classes(images).max()) for images in found.values()) + 1
    names = names or [str(label) for label in range(max(used, 2))]
    if used > len(names):
        raise DataError(
            f"a mask in {path} has the class {used - 1} and there are {len(names)} classes; "
            f"name it in classes.txt, or give --ignore-index {used - 1} if it is no class"
        )
    val, test = last_word(found.get("val"), found.get("test"))
    return Parts(found["train"], val, test, names, True, IMAGENET)


def _files(path: Path) -> Files:
    if not path.is_dir():
        raise DataError(f"there is no folder {path}")
    split = (path / "train").is_dir()
    places = {part: path / part for part in ("train", "val", "test")} if split else {"train": path}
    there = {part: place for part, place in places.items() if place.is_dir()}
    return {part: _pairs(place) for part, place in there.items()}


def _pairs(place: Path) -> tuple[list[Path], list[Path]]:
    """The pictures of a part and their masks, in the order of their names."""
    kinds = []
    for kind in ("images", "masks"):
        folder = place / kind
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; segmentation needs images and masks")
        files = (p for p in sorted(folder.iterdir()) if p.suffix.lower() in IMG_EXTENSIONS)
        kinds.append({p.stem: p for p in files})
    images, masks = kinds
    if lonely := sorted(images.keys() ^ masks.keys()):
        has, lacks = ("picture", "mask") if lonely[0] in images else ("mask", "picture")
        raise DataError(f"the {has} {lonely[0]} in {place} has no {lacks} of the same name")
    if not images:
        raise DataError(f"there is no picture in {place / 'images'}")
    return list(images.values()), [masks[name] for name in images]


def _common(files: Files, image_size: int | None) -> tuple[int, int]:
    if image_size:
        return image_size, image_size
    folders = [
        Folder(images, torch.zeros(len(images), dtype=torch.int64), (1, 1))
        for images, _ in files.values()
    ]
    return common_size(folders) or (_SIZE, _SIZE)


def _part(
    images: list[Path], masks: list[Path], size: tuple[int, int], ignore: int | None
) -> Resident:
    """All pictures of a part decoded, stretched to one size."""
    if len(images) * 4 * size[0] * size[1] > _LARGEST:
        raise DataError(
            f"{len(images)} pictures of {size[0]}×{size[1]} do not fit into 16 GiB; "
            "lower --image-size"
        )
    pixels = torch.empty(len(images), 3, *size, dtype=torch.uint8)
    labels = torch.empty(len(images), *size, dtype=torch.uint8)

    def decode(place: int) -> None:
        pixels[place], labels[place] = _decoded(images[place], masks[place], size)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(decode, range(len(images))):  # reading the results raises their errors
            pass
    if ignore is not None:
        labels[labels == ignore] = IGNORE
    return Resident(pixels, Masks(labels))


def _decoded(image: Path, mask: Path, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    picture, values = _open(image).convert("RGB"), _open(mask)
    if picture.size != values.size:
        raise DataError(
            f"the mask {mask} is {values.width}×{values.height} and its picture "
            f"{picture.width}×{picture.height}; they must be of one size"
        )
    if values.mode not in ("L", "P", "1", "I", "I;16"):
        raise DataError(
            f"the mask {mask} is a picture in colors ({values.mode}); a mask has one channel, "
            "whose values are classes"
        )
    wide = (size[1], size[0])
    pixels = np.array(picture.resize(wide, Image.Resampling.BILINEAR))
    labels = np.array(values.resize(wide, Image.Resampling.NEAREST))
    if labels.max() > IGNORE or labels.min() < 0:
        raise DataError(f"the mask {mask} has the value {labels.max()}; classes are 0 … 254")
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels.astype(np.uint8))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except (OSError, SyntaxError, ValueError) as fault:
        raise unreadable(str(path), fault) from None


def _classes(images: Resident) -> Tensor:
    """All values that are classes; 0 where there is none."""
    masks: Tensor = images.targets.masks  # type: ignore[attr-defined]
    return torch.where(masks == IGNORE, 0, masks)
