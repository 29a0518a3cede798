"""What the images are like: their normalisation, their balance, and what is in there twice."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ..data import ImageData
from ..data.images import Folder, Images, Resident

_DECODED = 2_000, 256  # images whose pixels are looked at: in memory, in files
_HASHED = 50_000, 5_000  # training images among which held-out ones are looked for
_HELD = 1_000  # of those
_FAR = 0.5  # of a standard deviation
_RATIO = 2.0  # of two standard deviations
_IMBALANCE = 10  # times as many images in one class as in another
_FEW = 5  # images in a class

Numbers = tuple[float, ...]


class DataReport(NamedTuple):
    """A data set as training would see it.

    Attributes:
        name: as it was asked for.
        sizes: {part: images}.
        shape: (C, H, W).
        classes: in order.
        counts: training images of each class.
        normalisation: mean and standard deviation that the images are brought to 0 and 1 by.
        moments: those that a sample of the images really has.
        sampled: how many images that sample has.
        repeated: {part: (images that are training images, too, images looked at)}.
        warnings: what to do about it, in sentences.
    """

    name: str
    sizes: dict[str, int]
    shape: tuple[int, int, int]
    classes: Sequence[str]
    counts: list[int]
    normalisation: tuple[Numbers, Numbers]
    moments: tuple[Numbers, Numbers]
    sampled: int
    repeated: dict[str, tuple[int, int]]
    warnings: list[str]


def look_at_data(data: ImageData) -> DataReport:
    """Sizes, classes and pixels; of large sets a part, which is always the same."""
    held = {n: part for n, part in (("val", data.val), ("test", data.test)) if part is not None}
    sample = _spread(data.train, _DECODED)
    moments = Resident(data.train.fetch(sample), data.train.labels[sample]).moments()
    known = set(_digests(data.train, _spread(data.train, _HASHED)))
    repeated = {}
    for name, part in held.items():
        mine = _digests(part, _places(len(part), _HELD))
        repeated[name] = (sum(each in known for each in mine), len(mine))
    counts = torch.bincount(data.train.labels, minlength=len(data.classes)).tolist()
    found = DataReport(
        data.name,
        {name: len(part) for name, part in {"train": data.train, **held}.items()},
        data.train.shape,
        data.classes,
        counts,
        (data.mean, data.std),
        moments,
        len(sample),
        repeated,
        [],
    )
    found.warnings.extend([*_on_pixels(found), *_on_classes(found), *_on_parts(found)])
    return found


def _spread(images: Images, most: tuple[int, int]) -> torch.Tensor:
    return _places(len(images), most[isinstance(images, Folder)])


def _places(count: int, most: int) -> torch.Tensor:
    """Up to `most` of `count` places, evenly spread, so that no class is left out."""
    return torch.arange(min(count, most)) * count // min(count, most)


def _digests(images: Images, places: torch.Tensor) -> list[bytes]:
    """What tells one image from another: pixels of those in memory, else the file's content."""
    if isinstance(images, Folder):
        files = (Path(images.path(place)).read_bytes() for place in places.tolist())
    else:
        files = (images.fetch(place[None]).numpy().tobytes() for place in places)
    return [hashlib.sha1(content, usedforsecurity=False).digest() for content in files]


def _on_pixels(found: DataReport) -> list[str]:
    (mean, std), (own_mean, own_std) = found.normalisation, found.moments
    far = any(
        abs(m - o) > _FAR * s or not 1 / _RATIO < t / s < _RATIO
        for m, s, o, t in zip(mean, std, own_mean, own_std, strict=True)
    )
    if not far:
        return []
    return [
        f"the images have mean {shown(own_mean)} and deviation {shown(own_std)}, and are "
        f"normalised by {shown(mean)} and {shown(std)}; in Python, "
        "dataclasses.replace(data, mean=..., std=...) gives them their own"
    ]


def _on_classes(found: DataReport) -> list[str]:
    by_size = sorted(zip(found.counts, found.classes, strict=True))
    (least, small), (most, large) = by_size[0], by_size[-1]
    if least == 0:
        empty = sum(count == 0 for count, _ in by_size)
        more = f" (and {empty - 1} more)" if empty > 1 else ""
        return [f"class '{small}'{more} has no training image; leave it out, or raise --limit"]
    if most >= _IMBALANCE * least:
        return [
            f"class '{large}' has {most:,} training images and '{small}' {least:,}: the accuracy "
            "will be that of the large classes; look at confusion.csv, too"
        ]
    if least < _FEW:
        return [f"class '{small}' has only {least} training images"]
    return []


def _on_parts(found: DataReport) -> list[str]:
    words = []
    if "val" not in found.sizes:
        words.append(
            "no validation images: settings could only be chosen by the test images, which then "
            "are no test any more; give --val 0.1"
        )
    elif found.sizes["val"] < 2 * len(found.classes):
        words.append(
            f"{found.sizes['val']} validation images for {len(found.classes)} classes say little; "
            "raise --val"
        )
    for name, (twice, looked) in found.repeated.items():
        if twice:
            words.append(
                f"{twice:,} of {looked:,} {name} images are training images, too: the accuracy on "
                "them says too much; remove one of each two"
            )
    return words


def shown(numbers: Numbers) -> str:
    """`(0.491, 0.482, 0.447)`."""
    return "(" + ", ".join(f"{x:.3f}" for x in numbers) + ")"
