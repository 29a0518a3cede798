"""The splits of packed images that have numbers for labels."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..core import DataError
from .class_folders import RESIZE_RATIO, SIZE
from .packed_images import NO_LABEL, ImagePack, PackedImages
from .splits import DatasetSplits, promote_val_to_test
from .targets import Labels, Targets, Unlabeled
from .text_files import numbered_classes


def packed_splits(
    packs: Mapping[str, ImagePack],
    names: Sequence[str],
    source: str,
    *,
    labeled: bool,
    remedy: str,
    notes: Sequence[str] = (),
) -> DatasetSplits:
    """The images of the parts of a data set, with the rules that class folders have.

    Images without a label are left out, as is a part in which none has one; `val` without `test`
    becomes the test split.

    Args:
        packs: by split; one is `train`.
        names: of the classes; none where they are called by their numbers.
        source: what has the images, as the user named it.
        labeled: whether labels are read; otherwise they stratify what is held out, and all images
            are kept.
        remedy: how an image and its label are to be there.
        notes: further ones.

    Raises:
        DataError: no image, or labels that leave a class out or are beyond the names.
    """
    splits, left_out = {}, []
    for split, pack in packs.items():
        images, lacking = _images(pack, labeled), int((pack.labels == NO_LABEL).sum())
        if len(images) or split == "train":
            splits[split] = images
        if labeled and lacking:
            left_out.append(f"{split} images without a label in {source} are left out: {lacking:,}")
    if not len(splits["train"]):
        what = "image with a label" if labeled else "image"
        raise DataError(f"there is no training {what} in {source}; {remedy}")
    classes: list[str] = []
    if labeled:
        labels = splits["train"].labels
        classes = numbered_classes(labels, names, source, "a training image", "class names")
    for split, images in splits.items():
        if labeled and (top := int(images.labels.max())) >= len(classes):
            raise DataError(
                f"a {split} image in {source} has the label {top}; the training labels go from 0 "
                f"to {len(classes) - 1}"
            )
    val, test = promote_val_to_test(splits.get("val"), splits.get("test"))
    all_notes = (*left_out, *notes)
    return DatasetSplits(splits["train"], val, test, classes, flip=True, notes=all_notes)


def _images(pack: ImagePack, labeled: bool) -> PackedImages:
    labels = pack.labels
    rows = np.flatnonzero(labels != NO_LABEL) if labeled else np.arange(len(labels))
    numbers = torch.from_numpy(labels[rows])
    targets: Targets = Labels(numbers) if labeled else Unlabeled(numbers - NO_LABEL)
    return PackedImages(pack, rows, targets, (SIZE, SIZE), RESIZE_RATIO)
