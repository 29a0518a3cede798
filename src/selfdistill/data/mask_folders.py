"""Folders of images and segmentation masks."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core import DataError
from .class_folders import IMAGENET, common_size
from .images import ImageFiles, map_images
from .in_memory import InMemoryImages
from .listing import Listing
from .mask_values import MaskClasses, encode_masks, read_mask_classes
from .open_image import UnreadableImageError, open_rgb, opened, orientation_of, turned
from .option_checks import ImageSize, both_sides
from .parts import Pairs, paired_folders
from .splits import DatasetSplits, check_folder, promote_val_to_test
from .targets import Masks

MAX_ZOOM = 2.0  # the custom for semantic segmentation
_MAX_BYTES = 16 << 30  # of decoded images and masks
_MAX_VALUE = 255
_SIZE = 256  # by default, where images differ in size
_MODES = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L")
Files = dict[str, tuple[list[Path], list[Path]]]
"""Images and masks by split."""


def read_mask_folder(
    path: Path, *, image_size: ImageSize | None = None, ignore_index: int | None = None
) -> DatasetSplits:
    """Read PATH/images and PATH/masks, or the same below PATH/train, PATH/val and PATH/test.

    With `train` and `val` alone, `val` becomes the test split, as in class folders. The parts may
    have other usual names (see `split_of_name`), and may lie within `images` and `masks`, too.

    A mask is a file of one channel (or with a palette, as in VOC) and of its image's size and name;
    the value of a pixel is its class, counted from 0. Names of the classes are the lines of
    PATH/classes.txt, which may name values (see `read_mask_classes`); without it they are numbered
    up to the largest value that occurs, and none may be missing.

    Args:
        path: the folder.
        image_size: side to resize all images to, or height and width; None keeps a common size and
            resizes images of different sizes to 256 × 256.
        ignore_index: a mask value that is no class, besides 255.

    Raises:
        DataError: no such folder, an image without a mask or the reverse, or invalid sizes or
            values.
    """
    check_folder(path)
    listing, files = Listing(), Files()
    for split, pairs in (_folders(path) or {"train": [(path / "images", path / "masks")]}).items():
        for folders in pairs:
            images, masks = _pair_files(*folders, listing)
            known_images, known_masks = files.get(split, ([], []))
            files[split] = [*known_images, *images], [*known_masks, *masks]
    splits = read_mask_pairs(path, files, read_mask_classes(path), image_size, ignore_index)
    return splits._replace(notes=listing.notes())


def is_mask_folder(path: Path) -> bool:
    """Whether a folder has folders of images and masks."""
    return bool(_folders(path))


def read_mask_pairs(
    path: Path,
    files: Files,
    classes: MaskClasses,
    image_size: ImageSize | None,
    ignore_index: int | None,
) -> DatasetSplits:
    """Decode lists of images and masks by split; `classes` may be empty."""
    size = _common_size(files, image_size)
    pixels, masks, broken = {}, {}, []
    for split, pairs in files.items():
        try:
            pixels[split], masks[split] = _decode_all(*pairs, size)
        except UnreadableImageError as error:
            broken += error.files
    if broken:
        raise UnreadableImageError(broken)
    names = encode_masks(path, masks, classes, ignore_index)
    splits = {split: InMemoryImages(pixels[split], Masks(masks[split])) for split in files}
    val, test = promote_val_to_test(splits.get("val"), splits.get("test"))
    return DatasetSplits(splits["train"], val, test, names, True, IMAGENET)


def _folders(path: Path) -> Pairs:
    return paired_folders(path, ("images",), ("masks",))


def _pair_files(
    image_folder: Path, mask_folder: Path, listing: Listing
) -> tuple[list[Path], list[Path]]:
    """The images of a split and their masks, sorted by name."""
    for folder in (image_folder, mask_folder):
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; segmentation needs images and masks")
    images, masks = listing.by_stem(image_folder), listing.by_stem(mask_folder)
    if unpaired := sorted(images.keys() ^ masks.keys()):
        has, lacks = ("picture", "mask") if unpaired[0] in images else ("mask", "picture")
        folder = image_folder if has == "picture" else mask_folder
        raise DataError(f"the {has} {unpaired[0]} in {folder} has no {lacks} of the same name")
    if not images:
        raise DataError(f"there is no picture in {image_folder}")
    return list(images.values()), [masks[name] for name in images]


def _common_size(files: Files, image_size: ImageSize | None) -> tuple[int, int]:
    if size := both_sides(image_size):
        return size
    splits = [
        ImageFiles(images, torch.zeros(len(images), dtype=torch.int64), (1, 1))
        for images, _ in files.values()
    ]
    return common_size(splits) or (_SIZE, _SIZE)


def _decode_all(
    images: list[Path], masks: list[Path], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """All images and the values of all masks of a split, resized to one size."""
    if len(images) * 4 * size[0] * size[1] > _MAX_BYTES:
        raise DataError(
            f"{len(images)} pictures of {size[0]}×{size[1]} do not fit into 16 GiB; "
            "lower --image-size"
        )
    pixels = torch.empty(len(images), 3, *size, dtype=torch.uint8)
    values = torch.empty(len(images), *size, dtype=torch.uint8)

    def decode(index: int) -> None:
        pixels[index], values[index] = _decode(images[index], masks[index], size)

    map_images(decode, range(len(images)))
    return pixels, values


def _decode(image: Path, mask: Path, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    picture, values = open_rgb(str(image)), _open_mask(mask)
    if picture.size != values.size:
        with opened(str(image)) as stored:
            tag = ", as its EXIF tag turns it" if orientation_of(stored) > 1 else ""
        raise DataError(
            f"the mask {mask} is {values.width}×{values.height} and its picture "
            f"{picture.width}×{picture.height}{tag}; they must be of one size"
        )
    width_height = (size[1], size[0])
    pixels = np.array(picture.resize(width_height, Image.Resampling.BILINEAR))
    labels = np.array(values.resize(width_height, Image.Resampling.NEAREST))
    if labels.max() > _MAX_VALUE or labels.min() < 0:
        raise DataError(f"the mask {mask} has the value {labels.max()}; classes are 0 … 254")
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels.astype(np.uint8))


def _open_mask(path: Path) -> Image.Image:
    with opened(str(path)) as mask:
        if mask.format in ("JPEG", "MPO"):
            raise DataError(
                f"the mask {path} is a JPEG, which blurs the values of classes; save masks as PNG"
            )
        if mask.mode not in _MODES:
            raise DataError(
                f"the mask {path} is a picture in colors ({mask.mode}); a mask has one channel, "
                "whose values are classes"
            )
        orientation = orientation_of(mask)
        mask.load()
        return turned(mask, orientation)
