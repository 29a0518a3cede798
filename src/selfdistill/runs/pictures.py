"""The pictures that a prediction is asked for: files, folders, and pictures in memory."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from ..core import DataError
from ..data.clip_folders import list_videos
from ..data.listing import Listing

Picture = str | Path | Image.Image | npt.NDArray[np.uint8] | Tensor
"""A file or folder, or a picture: of Pillow, an array (H, W, C), or a tensor (C, H, W)."""
Pictures = Picture | Iterable[Picture]


def given_pictures(pictures: Pictures) -> list[Path | Image.Image]:
    """The paths and pictures that are given.

    Args:
        pictures: one or several; an array or tensor of four dimensions is several. Pixels are
            uint8, with one, three or four channels: gray, RGB or RGBA.

    Raises:
        DataError: one does not exist or is no picture, or there is none.
    """
    if isinstance(pictures, np.ndarray | Tensor):
        several = pictures.ndim == 4
    else:
        several = isinstance(pictures, Iterable) and not isinstance(pictures, str | Path)
    given = list(cast(Iterable[Any], pictures)) if several else [pictures]
    if not given:
        raise DataError("no picture is given; name pictures, or a folder of them")
    return [_given(picture) for picture in given]


def _given(picture: Any) -> Path | Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, np.ndarray | Tensor):
        return _image(picture)
    if not isinstance(picture, str | Path):
        raise DataError(
            f"a picture is a path, a picture of Pillow, an array or a tensor, and this is "
            f"{type(picture).__name__}; save it as a picture, such as pictures/a.png, and give that"
        )
    if not Path(picture).exists():
        raise DataError(f"there is no picture and no folder {picture}")
    return Path(picture)


def _image(pixels: npt.NDArray[Any] | Tensor) -> Image.Image:
    """The picture with these pixels, as torchvision.io and OpenCV (after BGR2RGB) give them."""
    if isinstance(pixels, Tensor):
        moved = pixels.detach().cpu()
        array = (moved.permute(1, 2, 0) if moved.ndim == 3 else moved).contiguous().numpy()
    else:
        array = np.ascontiguousarray(pixels)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        layout = "a tensor (C, H, W)" if isinstance(pixels, Tensor) else "an array (H, W, C)"
        raise DataError(
            f"a picture is {layout} of uint8 with 1, 3 or 4 channels, and this is {pixels.dtype} "
            f"of shape {tuple(pixels.shape)}; give its pixels of 0 … 255, not normalized"
        )
    if not array.size:
        raise DataError(f"a picture of shape {tuple(pixels.shape)} has no pixels; leave it out")
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and channels == 1 else array)


def list_pictures(pictures: Pictures, *, videos: bool = False) -> dict[Path, Path | Image.Image]:
    """The pictures that are given, and all in folders that are given, by path or number.

    Args:
        pictures: see `given_pictures`; a picture in memory is called by its place, ``picture-0``.
        videos: list videos, which are files or folders of frames.

    Raises:
        DataError: see `given_pictures`; a folder holds none, or a video is wanted and a picture
            is given.
    """
    listed: dict[Path, Path | Image.Image] = {}
    for number, picture in enumerate(given_pictures(pictures)):
        if isinstance(picture, Image.Image):
            if videos:
                raise DataError(
                    "the network takes clips and this is a picture; give video files, or folders "
                    "of frames"
                )
            listed[Path(f"picture-{number}")] = picture
        elif picture.is_dir():
            inside = list_videos(picture) if videos else [*Listing().class_images([picture])[0]]
            if not inside:
                raise DataError(f"there is no {'video' if videos else 'picture'} in {picture}")
            listed |= {Path(path): Path(path) for path in inside}
        else:
            listed[picture] = picture
    return listed
