"""What a user should know of data before they are trained on."""

import warnings

from .image_data import ImageData
from .image_set import ImageSet, spaced_indices
from .targets import Unlabeled

_MAX_COMPARED = 64  # images whose pixels are compared
_MAX_PLAIN_FRACTION = 0.1  # of images of one color
_MIN_DISTINCT_FRACTION = 0.5


def data_notes(data: ImageData) -> list[str]:
    """Sentences on how data were read, classes without a training example, and equal images."""
    extra = data.extra.notes if data.extra else ()
    return [*data.notes, *extra, *_absent_classes(data), *_equal_images(data.train)]


def warn_of_data(data: ImageData) -> None:
    """Warn of all that `data_notes` has to say."""
    for note in data_notes(data):
        warnings.warn(note, stacklevel=2)


def _absent_classes(data: ImageData) -> list[str]:
    if isinstance(data.train.targets, Unlabeled):
        return []
    counts = data.train.targets.counts(len(data.classes)).tolist()
    absent = [name for name, count in zip(data.classes, counts, strict=False) if not count]
    if not absent:
        return []
    others = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
    unit = {"images": "image", "boxes": "box", "pixels": "pixel"}[data.train.targets.unit]
    return [
        f"class '{min(absent)}'{others} has no training {unit}; leave it out, add some, or hold "
        "out fewer images (--val-fraction, --max-train-images)"
    ]


def _equal_images(images: ImageSet) -> list[str]:
    """That many of a few images, evenly spaced, are of one color, or equal to one another."""
    pixels = images.fetch(spaced_indices(len(images), _MAX_COMPARED)).cpu().flatten(1)
    count = len(pixels)
    plain = int((pixels.amax(1) == pixels.amin(1)).sum())
    if plain > _MAX_PLAIN_FRACTION * count:
        return [
            f"{plain} of {count} training images that were looked at are of one color; see whether "
            "the files are right"
        ]
    distinct = len({image.numpy().tobytes() for image in pixels})
    if count > 1 and distinct <= _MIN_DISTINCT_FRACTION * count:
        return [
            f"{count} training images that were compared are {distinct} different ones; see "
            "whether the files are right"
        ]
    return []
