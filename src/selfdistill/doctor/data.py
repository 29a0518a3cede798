"""What the images are like: their normalization, their balance, and what is in there twice."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ..data import ImageData
from ..data.images import ImageFiles, ImageSet, InMemoryImages
from ..data.targets import Boxes

_DECODED = 2_000, 256  # images whose pixels are looked at: in memory, in files
_HASHED = 50_000, 5_000  # training images among which held-out ones are looked for
_HELD = 1_000  # of those
_FAR = 0.5  # of a standard deviation
_RATIO = 2.0  # of two standard deviations
# times as many of one class as of another; a scene has large and small things by its nature
_IMBALANCE = {"images": 10, "boxes": 10, "pixels": 1000}
_FEW = 5  # images or boxes in a class
_THIN = 4  # pixels: on the finest grid of most detectors (stride 8) half a cell
_MANY = 0.05  # of all boxes
_EMPTY = 0.5  # of all images

Numbers = tuple[float, ...]


class DataReport(NamedTuple):
    """A data set as training would see it.

    Attributes:
        name: as it was asked for.
        sizes: {part: images}.
        shape: (C, H, W).
        layout: in which of several layouts a folder was found; "" where there is one only.
        classes: in order.
        unit: what has a class: images, pixels or boxes.
        counts: units of each class in the training part.
        empty: training images without a unit of any class.
        thin: boxes in the training part that are less than 4 pixels wide or high.
        normalization: mean and standard deviation that the images are brought to 0 and 1 by.
        moments: those that a sample of the images really has.
        sampled: how many images that sample has.
        repeated: {part: (images that are training images, too, images looked at)}.
        warnings: what to do about it, in sentences.
    """

    name: str
    sizes: dict[str, int]
    shape: tuple[int, int, int]
    layout: str
    classes: Sequence[str]
    unit: str
    counts: list[int]
    empty: int
    thin: int
    normalization: tuple[Numbers, Numbers]
    moments: tuple[Numbers, Numbers]
    sampled: int
    repeated: dict[str, tuple[int, int]]
    warnings: list[str]


def look_at_data(data: ImageData) -> DataReport:
    """Sizes, classes and pixels; of large sets a part, which is always the same."""
    held = {n: part for n, part in (("val", data.val), ("test", data.test)) if part is not None}
    sample = _spread(data.train, _DECODED)
    moments = InMemoryImages(data.train.fetch(sample), data.train.labels[sample]).mean_and_std()
    known = set(_digests(data.train, _spread(data.train, _HASHED)))
    repeated = {}
    for name, part in held.items():
        mine = _digests(part, _places(len(part), _HELD))
        repeated[name] = (sum(each in known for each in mine), len(mine))
    targets = data.train.targets
    found = DataReport(
        data.name,
        {name: len(part) for name, part in {"train": data.train, **held}.items()},
        data.train.shape,
        data.layout,
        data.classes,
        targets.unit,
        targets.counts(len(data.classes)).tolist(),
        int(targets.empty().sum()),
        targets.count_thin(_THIN) if isinstance(targets, Boxes) else 0,
        (data.mean, data.std),
        moments,
        len(sample),
        repeated,
        [],
    )
    found.warnings.extend(
        [*_on_pixels(found), *_on_classes(found), *_on_scenes(found), *_on_parts(found)]
    )
    return found


def _spread(images: ImageSet, most: tuple[int, int]) -> torch.Tensor:
    return _places(len(images), most[isinstance(images, ImageFiles)])


def _places(count: int, most: int) -> torch.Tensor:
    """Up to `most` of `count` places, evenly spread, so that no class is left out."""
    return torch.arange(min(count, most)) * count // min(count, most)


def _digests(images: ImageSet, places: torch.Tensor) -> list[bytes]:
    """What tells one image from another: pixels of those in memory, else the file's content."""
    if isinstance(images, ImageFiles):
        files = (Path(images.path(place)).read_bytes() for place in places.tolist())
    else:
        files = (images.fetch(place[None]).numpy().tobytes() for place in places)
    return [hashlib.sha1(content, usedforsecurity=False).digest() for content in files]


def _on_pixels(found: DataReport) -> list[str]:
    (mean, std), (own_mean, own_std) = found.normalization, found.moments
    far = any(
        abs(m - o) > _FAR * s or not 1 / _RATIO < t / s < _RATIO
        for m, s, o, t in zip(mean, std, own_mean, own_std, strict=True)
    )
    if not far:
        return []
    return [
        f"the images have mean {shown(own_mean)} and deviation {shown(own_std)}, and are "
        f"normalized by {shown(mean)} and {shown(std)}; in Python, "
        "dataclasses.replace(data, mean=..., std=...) gives them their own"
    ]


def _on_classes(found: DataReport) -> list[str]:
    by_size = sorted(zip(found.counts, found.classes, strict=True))
    (least, small), (most, large) = by_size[0], by_size[-1]
    if least == 0:
        empty = sum(count == 0 for count, _ in by_size)
        more = f" (and {empty - 1} more)" if empty > 1 else ""
        one = {"images": "image", "boxes": "box", "pixels": "pixel"}[found.unit]
        return [f"class '{small}'{more} has no training {one}; leave it out, or raise --limit"]
    if most >= _IMBALANCE[found.unit] * least:
        outcome = (
            "the accuracy will be that of the large classes; look at confusion.csv, too"
            if found.unit == "images"
            else "the small classes are learned last; look at the figures of each class, too"
        )
        counts = f"{most:,} training {found.unit} and '{small}' {least:,}"
        return [f"class '{large}' has {counts}: {outcome}"]
    if least < _FEW and found.unit != "pixels":
        return [f"class '{small}' has only {least} training {found.unit}"]
    return []


def _on_scenes(found: DataReport) -> list[str]:
    words, images = [], found.sizes["train"]
    if found.empty > _EMPTY * images:
        words.append(
            f"{found.empty:,} of {images:,} training images hold nothing of any class: most "
            "steps teach background alone; leave some of them out"
        )
    if found.thin > _MANY * sum(found.counts):
        height, width = found.shape[1:]
        words.append(
            f"{found.thin:,} of {sum(found.counts):,} training boxes are less than {_THIN} pixels "
            f"wide or high at {height}×{width}; raise --image-size"
        )
    return words


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
