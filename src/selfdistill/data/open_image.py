"""Image files opened in one way: their formats, orientation, transparency, depth and limits."""

import io
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..core import DataError
from .threads import DECODED

FORMATS = ("PNG", "JPEG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""What Pillow may decode; of its other plugins, that of EPS runs a program on the file's text."""
EXTENSIONS = (
    ".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pfm", ".pgm", ".png",
    ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Endings of files in these formats."""
MAX_PIXELS = 89_478_485  # where Pillow begins to warn; every thread may hold one such image
_MAX_LISTED = 20
_ALREADY_OPEN = threading.Lock()  # one that is given twice must not be decoded by two threads
_GROUND = (255, 255, 255, 255)  # below transparent pixels
_ORIENTATION = 0x0112  # tag of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class StoredImage(NamedTuple):
    """An image that is no file by itself, such as a member of an archive.

    Attributes:
        read: gives the bytes of its file.
        name: gives what to call it where it cannot be read.
    """

    read: Callable[[], bytes]
    name: Callable[[], str]


class UnreadableImageError(DataError):
    """Image files that cannot be decoded.

    Args:
        files: path and reason of each.
        kind: of the files, in the singular.
    """

    def __init__(self, files: Sequence[tuple[str, str]], kind: str = "image") -> None:
        super().__init__(files, kind)  # what a worker's pickle rebuilds it from
        self.files, self.kind = list(files), kind

    def __str__(self) -> str:
        shown = ", ".join(f"{_printable(path)} ({why})" for path, why in self.files[:_MAX_LISTED])
        if len(self.files) == 1:
            return f"cannot read the {self.kind} {shown}; replace or remove the file"
        count, others = f"{len(self.files):,} {self.kind}s", len(self.files) - _MAX_LISTED
        more = f" and {others:,} more" if others > 0 else ""
        return f"cannot read {count}: {shown}{more}; replace or remove the files"


def raise_unreadable(errors: Sequence[UnreadableImageError]) -> None:
    """Raises one `UnreadableImageError` of all files, sorted, if there are any."""
    if errors:
        files = sorted({file for error in errors for file in error.files})
        raise UnreadableImageError(files, errors[0].kind)


@contextmanager
def opened(file: str | StoredImage | Image.Image) -> Iterator[Image.Image]:
    """An image file, by its path, stored elsewhere or open, of which the header is read.

    Raises:
        UnreadableImageError: whatever the decoder raises, here or in the block.
    """
    try:
        if isinstance(file, Image.Image):
            with _ALREADY_OPEN:
                yield file
            return
        if isinstance(file, str) and not stat.S_ISREG(os.stat(file).st_mode):
            raise OSError("no regular file")  # a pipe would be waited for
        content = file if isinstance(file, str) else io.BytesIO(file.read())
        with Image.open(content, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise OSError(
                    f"{image.width}×{image.height} are more than {MAX_PIXELS:,} pixels; shrink it"
                )
            yield image
    except DataError:
        raise
    except Exception as error:  # decoders raise anything on broken files
        name = _name(file)
        raise UnreadableImageError([(name, _reason(error))]) from None


def open_rgb(file: str | StoredImage | Image.Image) -> Image.Image:
    """A decoded image in RGB, turned as its EXIF tag says, on white where it is transparent.

    More than 8 bits are scaled by their depth.

    Args:
        file: its path, stored elsewhere, or open already.

    Raises:
        UnreadableImageError: the file is missing, broken, too large or of another format.
    """
    with opened(file) as image:
        orientation = orientation_of(image)
        DECODED.hold(image.width * image.height)
        return turned(_to_rgb(image), orientation)


def check_readable(file: str | StoredImage) -> None:
    """Raises `UnreadableImageError` if an image cannot be decoded."""
    open_rgb(file)


def image_size(file: str | StoredImage) -> tuple[int, int]:
    """Height and width of an image as it is shown, from the header of its file."""
    with opened(file) as image:
        sides = image.height, image.width
        return sides[::-1] if orientation_of(image) >= 5 else sides


def orientation_of(image: Image.Image) -> int:
    """The orientation 1 … 8 by EXIF, before the image is decoded."""
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1  # Pillow turns TIFF by itself, and would decode a PNG to search for the tag
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken tag turns nothing
        return 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """An image as it is shown."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, _GROUND)
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Gray pixels of up to 16 bits, scaled to 8."""
    bits = 16  # PNG and PPM, which Pillow scales to that
    if image.format == "TIFF":
        (bits, *_) = image.tag_v2.get(258, (16,))  # type: ignore[attr-defined]
        if image.mode == "I" or bits > 16:
            raise ValueError("its 32-bit or signed pixels have no known range; save 8 or 16 bits")
    top = 2**bits - 1
    values = np.asarray(image).astype(np.int64).clip(0, top)
    return np.asarray((values * 255 + top // 2) // top, dtype=np.uint8)


def _name(file: str | StoredImage | Image.Image) -> str:
    if isinstance(file, str):
        return file
    return (
        file.name()
        if isinstance(file, StoredImage)
        else str(getattr(file, "filename", "in memory"))
    )


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"of none of the formats {', '.join(FORMATS)}"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]


def _printable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "replace").replace("\n", "\\n")
