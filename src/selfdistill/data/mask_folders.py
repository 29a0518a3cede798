"""Folders of images and segmentation masks."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..core import IGNORE, DataError
from .class_folders import IMAGENET, common_size
from .images import ImageFiles, InMemoryImages, map_in_threads, unreadable_image
from .splits import DatasetSplits, check_folder, promote_val_to_test, read_class_names
from .targets import Masks

MAX_ZOOM = 2.0  # the custom for semantic segmentation
_MAX_BYTES = 16 << 30  # of decoded images and masks
_SIZE = 256  # by default, where images differ in size
Files = dict[str, tuple[list[Path], list[Path]]]
"""Images and masks by split."""


def read_mask_folder(
    path: Path, *, image_size: int | None = None, ignore_index: int | None = None
) -> DatasetSplits:
    """Read PATH/images and PATH/masks, or the same below PATH/train, PATH/val and PATH/test.

    With `train` and `val` alone, `val` becomes the test split, as in class folders.

    A mask is a file of one channel (or with a palette, as in VOC) and of its image's size and name;
    the value of a pixel is its class, counted from 0. Names of the classes are the lines of
    PATH/classes.txt; without it they are numbered up to the largest value that occurs.

    Args:
        path: the folder.
        image_size: side to resize all images to; None keeps a common size and resizes images of
            different sizes to 256 × 256.
        ignore_index: a mask value that is no class, besides 255.

    Raises:
        DataError: no such folder, an image without a mask or the reverse, or invalid sizes or
            values.
    """
    return read_mask_pairs(path, _files(path), read_class_names(path), image_size, ignore_index)


def is_mask_folder(path: Path) -> bool:
    """Whether a folder has folders of images and masks."""
    inner = path / "train" if (path / "train").is_dir() else path
    return (inner / "images").is_dir() and (inner / "masks").is_dir()


def read_mask_pairs(
    path: Path, files: Files, names: list[str], image_size: int | None, ignore_index: int | None
) -> DatasetSplits:
    """Decode lists of images and masks by split; `names` may be empty."""
    size = _common_size(files, image_size)
    splits = {split: _decode_all(*pairs, size, ignore_index) for split, pairs in files.items()}
    used = max(_largest_label(images) for images in splits.values()) + 1
    names = names or [str(label) for label in range(max(used, 2))]
    if used > len(names):
        raise DataError(
            f"a mask in {path} has the class {used - 1} and there are {len(names)} classes; "
            f"name it in classes.txt, or give ignore_index={used - 1} if it is no class"
        )
    val, test = promote_val_to_test(splits.get("val"), splits.get("test"))
    return DatasetSplits(splits["train"], val, test, names, True, IMAGENET)


def _files(path: Path) -> Files:
    check_folder(path)
    if not (path / "train").is_dir():
        return {"train": _pair_files(path)}
    folders = {split: path / split for split in ("train", "val", "test")}
    return {split: _pair_files(folder) for split, folder in folders.items() if folder.is_dir()}


def _pair_files(path: Path) -> tuple[list[Path], list[Path]]:
    """The images of a split and their masks, sorted by name."""
    by_stem = []
    for name in ("images", "masks"):
        folder = path / name
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; segmentation needs images and masks")
        files = (p for p in sorted(folder.iterdir()) if p.suffix.lower() in IMG_EXTENSIONS)
        by_stem.append({p.stem: p for p in files})
    images, masks = by_stem
    if unpaired := sorted(images.keys() ^ masks.keys()):
        has, lacks = ("picture", "mask") if unpaired[0] in images else ("mask", "picture")
        raise DataError(f"the {has} {unpaired[0]} in {path} has no {lacks} of the same name")
    if not images:
        raise DataError(f"there is no picture in {path / 'images'}")
    return list(images.values()), [masks[name] for name in images]


def _common_size(files: Files, image_size: int | None) -> tuple[int, int]:
    if image_size:
        return image_size, image_size
    splits = [
        ImageFiles(images, torch.zeros(len(images), dtype=torch.int64), (1, 1))
        for images, _ in files.values()
    ]
    return common_size(splits) or (_SIZE, _SIZE)


def _decode_all(
    images: list[Path], masks: list[Path], size: tuple[int, int], ignore_index: int | None
) -> InMemoryImages:
    """All images and masks of a split, resized to one size."""
    if len(images) * 4 * size[0] * size[1] > _MAX_BYTES:
        raise DataError(
            f"{len(images)} pictures of {size[0]}×{size[1]} do not fit into 16 GiB; "
            "lower --image-size"
        )
    pixels = torch.empty(len(images), 3, *size, dtype=torch.uint8)
    labels = torch.empty(len(images), *size, dtype=torch.uint8)

    def decode(index: int) -> None:
        pixels[index], labels[index] = _decode(images[index], masks[index], size)

    map_in_threads(decode, range(len(images)))
    if ignore_index is not None:
        labels[labels == ignore_index] = IGNORE
    return InMemoryImages(pixels, Masks(labels))


def _decode(image: Path, mask: Path, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    opened, values = _open(image).convert("RGB"), _open(mask)
    if opened.size != values.size:
        raise DataError(
            f"the mask {mask} is {values.width}×{values.height} and its picture "
            f"{opened.width}×{opened.height}; they must be of one size"
        )
    if values.mode not in ("L", "P", "1", "I", "I;16"):
        raise DataError(
            f"the mask {mask} is a picture in colors ({values.mode}); a mask has one channel, "
            "whose values are classes"
        )
    width_height = (size[1], size[0])
    pixels = np.array(opened.resize(width_height, Image.Resampling.BILINEAR))
    labels = np.array(values.resize(width_height, Image.Resampling.NEAREST))
    if labels.max() > IGNORE or labels.min() < 0:
        raise DataError(f"the mask {mask} has the value {labels.max()}; classes are 0 … 254")
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels.astype(np.uint8))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError) as error:
        raise unreadable_image(str(path), error) from None


def _largest_label(images: InMemoryImages) -> int:
    """The largest class of any pixel; 0 where there is none."""
    masks: Tensor = images.targets.masks  # type: ignore[attr-defined]
    return int(torch.where(masks == IGNORE, 0, masks).max())
