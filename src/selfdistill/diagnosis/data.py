"""Report on the data: normalization, class balance, empty images, thin boxes and duplicates."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor

from ..data import ImageData, data_notes
from ..data.image_data import OWN
from ..data.image_set import ImageSet, spaced_indices
from ..data.images import ImageFiles, map_images
from ..data.in_memory import InMemoryImages
from ..data.open_image import UnreadableImageError, raise_unreadable
from ..data.targets import Boxes

_MAX_DECODED = 2_000, 256  # images whose moments are measured: in memory, in files
_MAX_HASHED = 50_000, 5_000  # training images among which duplicates are searched: likewise
_MAX_HEADERS, _MAX_OPENED = 10_000, 2_000  # streamed images of a part that are read
_MAX_HELD_OUT = 1_000  # held-out images that are searched for
_MAX_MEAN_SHIFT = 0.5  # of a standard deviation
_MAX_STD_RATIO = 2.0
# of the most frequent class to the rarest; a scene has large and small objects by its nature
_MAX_IMBALANCE = {"images": 10, "boxes": 10, "pixels": 1000}
_MIN_PER_CLASS = 5  # images or boxes
_THIN_PIXELS = 4  # on the finest grid of most detectors (stride 8) half a cell
_MAX_THIN_FRACTION = 0.05  # of all boxes
_MAX_EMPTY_FRACTION = 0.5  # of all images

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class DataReport:
    """A data set as training reads it.

    Attributes:
        name: as given in the recipe.
        sizes: {part: number of images}, and of extra images where there are some.
        shape: (C, H, W), or (C, T, H, W) of a clip.
        layout: which of several layouts a folder has; "" where there is one only.
        classes: in order.
        unit: what has a class: images, pixels or boxes.
        counts: units of each class in the training part.
        empty_images: training images without a unit of any class.
        thin_boxes: training boxes that are less than 4 pixels wide or high.
        normalization: mean and standard deviation that the images are normalized by.
        normalization_text: the same and whose they are, in a line.
        conversion: what was done to the channels of the images, a phrase, or "".
        moments: mean and standard deviation of a sample of the images.
        num_sampled: number of images in that sample.
        duplicates: {part: (images that are training images too, images searched)}.
        files_read: {part: (headers, decoded)} of the streamed images of a part, how many were read.
        notes: of `data.data_notes`, which training warns of, too.
    """

    name: str
    sizes: dict[str, int]
    shape: tuple[int, ...]
    layout: str
    classes: Sequence[str]
    unit: str
    counts: list[int]
    empty_images: int
    thin_boxes: int
    normalization: tuple[Numbers, Numbers]
    normalization_text: str
    conversion: str
    moments: tuple[Numbers, Numbers]
    num_sampled: int
    duplicates: dict[str, tuple[int, int]]
    files_read: dict[str, tuple[int, int]]
    notes: list[str]

    @property
    def warnings(self) -> list[str]:
        """Sentences with a remedy."""
        return [
            *self.notes,
            *_normalization_warnings(self),
            *_class_warnings(self),
            *_scene_warnings(self),
            *_part_warnings(self),
        ]


def check_data(data: ImageData) -> DataReport:
    """Measure sizes, classes and pixels; of large sets a fixed sample.

    Raises:
        UnreadableImageError: some streamed images cannot be read, which training would meet later.
    """
    held_out = {n: part for n, part in (("val", data.val), ("test", data.test)) if part is not None}
    extra = {"extra": data.extra.images} if data.extra else {}
    files_read = _check_files({"train": data.train, **held_out, **extra})
    sample = _sample(data.train, _MAX_DECODED)
    train_digests = set(_digests(data.train, _sample(data.train, _MAX_HASHED)))
    duplicates = {}
    for name, part in held_out.items():
        digests = _digests(part, spaced_indices(len(part), _MAX_HELD_OUT))
        duplicates[name] = (sum(digest in train_digests for digest in digests), len(digests))
    targets = data.train.targets
    return DataReport(
        name=data.name,
        sizes={n: len(part) for n, part in {"train": data.train, **held_out, **extra}.items()},
        shape=data.train.shape,
        layout=data.layout,
        classes=data.classes,
        unit=targets.unit,
        counts=targets.counts(len(data.classes)).tolist(),
        empty_images=int(targets.empty().sum()),
        thin_boxes=targets.count_thin(_THIN_PIXELS) if isinstance(targets, Boxes) else 0,
        normalization=(data.mean, data.std),
        normalization_text=data.normalization_text,
        conversion=data.conversion,
        moments=InMemoryImages(data.train.fetch(sample), data.train.labels[sample]).mean_and_std(),
        num_sampled=len(sample),
        duplicates=duplicates,
        files_read=files_read,
        notes=data_notes(data),
    )


def _check_files(parts: Mapping[str, ImageSet]) -> dict[str, tuple[int, int]]:
    """Read the headers of streamed images, and decode some of them; how many of each part.

    Raises:
        UnreadableImageError: naming all that cannot be read.
    """
    broken: list[UnreadableImageError] = []
    counts = {}
    for part, images in parts.items():
        if not isinstance(images, ImageFiles):
            continue
        headers, decoded = (spaced_indices(len(images), n) for n in (_MAX_HEADERS, _MAX_OPENED))
        counts[part] = len(headers), len(decoded)
        checks: tuple[tuple[Tensor, Callable[[int], object]], ...] = (
            (headers, images.stored_size),
            (decoded, images.check_readable),
        )
        for indices, read in checks:
            try:
                map_images(read, indices.tolist())
            except UnreadableImageError as error:
                broken.append(error)
    raise_unreadable(broken)
    return counts


def _sample(images: ImageSet, limits: tuple[int, int]) -> Tensor:
    """Indices of a sample; `limits` are for images in memory and in files."""
    frames = prod(images.shape[1:-2])  # of a clip
    return spaced_indices(len(images), max(1, limits[isinstance(images, ImageFiles)] // frames))


def _digests(images: ImageSet, indices: Tensor) -> list[bytes]:
    """Hash of each image: of the pixels in memory, else of the file."""
    if isinstance(images, ImageFiles):
        contents = (images.read_bytes(i) for i in indices.tolist())
    else:
        contents = (images.fetch(i[None]).numpy().tobytes() for i in indices)
    return [hashlib.sha1(content, usedforsecurity=False).digest() for content in contents]


def _normalization_warnings(report: DataReport) -> list[str]:
    (mean, std), (sample_mean, sample_std) = report.normalization, report.moments
    if OWN not in report.normalization_text or not any(
        abs(m - sm) > _MAX_MEAN_SHIFT * s or not 1 / _MAX_STD_RATIO < ss / s < _MAX_STD_RATIO
        for m, s, sm, ss in zip(mean, std, sample_mean, sample_std, strict=True)
    ):
        return []
    return [
        f"the images have mean {_format(sample_mean)} and deviation {_format(sample_std)}, and are "
        f"normalized by {_format(mean)} and {_format(std)}; --mean and --std give them their own"
    ]


def _class_warnings(report: DataReport) -> list[str]:
    if not any(report.counts):  # no label is read
        return []
    by_size = sorted(zip(report.counts, report.classes, strict=True))
    (least, small), (most, large) = by_size[0], by_size[-1]
    if least == 0:  # of which the notes warn
        return []
    if most >= _MAX_IMBALANCE[report.unit] * least:
        effect = (
            "the accuracy will be that of the large classes; look at confusion.csv, too"
            if report.unit == "images"
            else "the small classes are learned last; look at the figures of each class, too"
        )
        counts = f"{most:,} training {report.unit} and '{small}' {least:,}"
        return [f"class '{large}' has {counts}: {effect}"]
    if least < _MIN_PER_CLASS and report.unit != "pixels":
        return [f"class '{small}' has only {least} training {report.unit}"]
    return []


def _scene_warnings(report: DataReport) -> list[str]:
    warnings, images, boxes = [], report.sizes["train"], sum(report.counts)
    if report.empty_images > _MAX_EMPTY_FRACTION * images:
        warnings.append(
            f"{report.empty_images:,} of {images:,} training images hold nothing of any class: "
            "most steps teach background alone; leave some of them out"
        )
    if report.thin_boxes > _MAX_THIN_FRACTION * boxes:
        height, width = report.shape[-2:]
        warnings.append(
            f"{report.thin_boxes:,} of {boxes:,} training boxes are less than {_THIN_PIXELS} "
            f"pixels wide or high at {height}×{width}; raise --image-size"
        )
    return warnings


def _part_warnings(report: DataReport) -> list[str]:
    warnings = []
    if "val" not in report.sizes:
        warnings.append(
            "no validation images: settings could only be chosen by the test images, which then "
            "are no test any more; give --val-fraction 0.1"
        )
    elif any(report.counts) and report.sizes["val"] < 2 * len(report.classes):
        warnings.append(
            f"{report.sizes['val']} validation images for {len(report.classes)} classes say "
            "little; raise --val-fraction"
        )
    for name, (count, searched) in report.duplicates.items():
        if count:
            warnings.append(
                f"{count:,} of {searched:,} {name} images are training images, too: the accuracy "
                "on them says too much; remove one of each two"
            )
    return warnings


def _format(numbers: Numbers) -> str:
    """`(0.491, 0.482, 0.447)`."""
    return "(" + ", ".join(f"{x:.3f}" for x in numbers) + ")"
