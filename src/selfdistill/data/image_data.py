"""A data set of labeled images, as the loaders take it."""

from dataclasses import dataclass, replace
from typing import Any, Self

from ..core import DataError
from ..functional.channels import convert_moments
from .extra_images import ExtraImages
from .image_set import ImageSet
from .in_memory import InMemoryImages
from .targets import Labels

_CLASS_TASKS = ("classification", "clips")
Numbers = tuple[float, ...]
OWN = "the data set's own"


@dataclass(frozen=True)
class ImageData:
    """A data set, ready for the loaders.

    Attributes:
        name: as given to `load`.
        train, val, test: the splits; val selects runs and epochs, test gives the reported scores.
        classes: names, in the order of the labels.
        mean, std: by which images are normalized, one number per channel, of pixels in [0, 1].
        crop_padding: default padding of the random crop in pixels; 0 for none.
        flip: whether a mirrored image keeps its meaning.
        resized_crop: whether training uses random resized crops by default.
        max_zoom: default factor of the largest random zoom; 1 for none.
        task: a name in `tasks.TASKS`.
        layout: name of the annotation layout; "" where a task has one only.
        notes: what a user should know of how the data were read; `data_notes` has more.
        fit: how a picture of any size is brought to this shape, a name in `preparation.FITS`.
        resize_ratio: of a picture that is cropped, see `ImageFiles`.
        normalization: whose `mean` and `std` are, a phrase that starts with `OWN` if the set's.
        own_moments: mean and std of the set itself; None where `mean` and `std` are these.
        converted_from: channels of the stored images, where they are converted; else 0.
        extra: images without labels of another source, for methods that learn from them, too.
        color_jitter: strength of random colors in training; 0 for none.
    """

    name: str
    train: ImageSet
    val: ImageSet | None
    test: ImageSet | None
    classes: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int
    flip: bool
    resized_crop: bool
    max_zoom: float = 1.0
    task: str = "classification"
    layout: str = ""
    notes: tuple[str, ...] = ()
    fit: str = InMemoryImages.fit
    resize_ratio: float = 1.0
    normalization: str = OWN
    own_moments: tuple[Numbers, Numbers] | None = None
    converted_from: int = 0
    extra: ExtraImages | None = None
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        """Raises `DataError` for what no run could be trained or normalized by."""
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if not all(0 <= number <= 1 for number in numbers):
                raise DataError(
                    f"{name} {tuple(numbers)} is not of pixels in 0 … 1; if it is of 0 … 255, "
                    "divide mean and std by 255"
                )
        if not all(self.std):
            raise DataError(f"std {tuple(self.std)} divides by 0; give 1 for a constant channel")
        if self.task in _CLASS_TASKS:
            if len(self.classes) < 2:
                raise DataError(f"the data have one class, {self.classes}; two are the least")
            for name in ("train", "val", "test"):
                _check_labels(getattr(self, name), name, len(self.classes))

    @property
    def moments(self) -> tuple[Numbers, Numbers]:
        """Mean and std of the set itself."""
        return self.own_moments or (self.mean, self.std)

    def normalized_by(self, mean: Numbers, std: Numbers, source: str) -> Self:
        """The same data, normalized by numbers of another source, a phrase."""
        own = None if self.moments == (mean, std) else self.moments
        return replace(self, mean=mean, std=std, normalization=source, own_moments=own)

    def with_channels(self, channels: int) -> Self:
        """The same data as `functional.channels` converts them, with their own normalization."""
        parts: dict[str, Any] = {
            name: part.with_channels(channels)
            for name, part in (("train", self.train), ("val", self.val), ("test", self.test))
            if part is not None
        }
        mean, std = (convert_moments(numbers, channels) for numbers in self.moments)
        stored = self.converted_from or self.train.shape[0]
        own: dict[str, Any] = {"normalization": OWN, "own_moments": None}
        return replace(self, **parts, **own, mean=mean, std=std, converted_from=stored)

    @property
    def normalization_text(self) -> str:
        """Mean and std, and whose they are, in a line."""
        mean, std = (" ".join(f"{x:.3f}" for x in numbers) for numbers in (self.mean, self.std))
        return f"mean {mean}, std {std}: {self.normalization}"

    @property
    def conversion(self) -> str:
        """What was done to the channels of the images, a phrase, or ""."""
        channels = self.train.shape[0]
        if self.converted_from in (0, channels):
            return ""
        return "gray images repeated in 3 channels" if channels == 3 else "color converted to gray"


def _check_labels(images: ImageSet | None, part: str, classes: int) -> None:
    """Raises `DataError` if a label is the number of no class."""
    if images is None or not isinstance(images.targets, Labels) or not len(images):
        return
    least, most = (int(bound) for bound in images.labels.aminmax())
    if least < 0 or most >= classes:
        raise DataError(
            f"the labels of the {part} images are {least} … {most}, and {classes} classes are "
            f"numbered 0 … {classes - 1}; number them so, or name all classes"
        )
