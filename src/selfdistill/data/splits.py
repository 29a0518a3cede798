"""What every source hands to `load`."""

from pathlib import Path
from typing import NamedTuple, TypeVar

from .images import Images

Moments = tuple[tuple[float, ...], tuple[float, ...]]
T = TypeVar("T", bound=Images)


class Parts(NamedTuple):
    """A data set as its source has it, before any splitting, limiting or resizing.

    Attributes:
        train, val, test: the parts that the source itself tells apart; all of one kind.
        classes: names, in the order of the labels.
        flip: whether a mirrored image keeps its meaning.
        moments: published mean and standard deviation per channel; None to compute them.
        layout: in which of several layouts the data lie; "" where there is one only.
    """

    train: Images
    val: Images | None
    test: Images | None
    classes: list[str]
    flip: bool
    moments: Moments | None = None
    layout: str = ""


def last_word(val: T | None, test: T | None) -> tuple[T | None, T | None]:
    """Validation and test part; where there is no test part, the validation part becomes it.

    This is the custom where the labels of the test images are not public (ImageNet, COCO, VOC
    2012). A validation part is then to be held out of the training images.
    """
    return (None, val) if test is None else (val, test)


def listed_names(path: Path) -> list[str]:
    """The lines of PATH/classes.txt; none where there is no such file."""
    place = path / "classes.txt"
    if not place.exists():
        return []
    return [line.strip() for line in place.read_text(encoding="utf-8").splitlines() if line.strip()]
