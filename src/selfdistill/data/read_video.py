"""Frames of a video: of a folder of pictures, or of a video file, which PyAV decodes."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from ..core.extras import require
from .open_image import EXTENSIONS, UnreadableImageError, image_size, open_rgb
from .threads import DECODED

VIDEO_EXTENSIONS = (
    ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv",
)  # fmt: skip
"""Endings of video files; whether one can be decoded is for FFmpeg's libraries to say."""


def is_video(name: str) -> bool:
    """Whether a file is a video by its ending."""
    return name.lower().endswith(VIDEO_EXTENSIONS)


def frame_files(folder: str | Path) -> list[str]:
    """The pictures right in a folder, numbers in their names in order of size: 2 before 10."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name.lower().endswith(EXTENSIONS) and e.is_file()]
    visible = (name for name in names if not name.startswith("."))
    return [os.path.join(folder, name) for name in sorted(visible, key=_natural_order)]


def _natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    parts = re.findall(r"\d+|\D+", name)
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in parts], name


def count_frames(path: str) -> int:
    """Frames of a video file, by its header or, where that does not say, by its packets.

    Raises:
        UnreadableImageError: it is no video, or holds none.
        ConfigError: PyAV is not installed.
    """
    with _opened(path) as (container, stream):
        count: int = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        if not count:
            raise ValueError("it holds no frame")
        return count


def video_length(path: str) -> int:
    """Frames of a folder of frames or a video file.

    Raises:
        UnreadableImageError: it is neither, or holds none.
        ConfigError: PyAV is not installed.
    """
    if not os.path.isdir(path) and not is_video(path):
        kinds = ", ".join(VIDEO_EXTENSIONS)
        raise UnreadableImageError([(path, f"no folder of frames, and none of {kinds}")], "video")
    length = len(frame_files(path)) if os.path.isdir(path) else count_frames(path)
    if not length:
        raise UnreadableImageError([(path, "there is no picture right in this folder")], "video")
    return length


def read_frames(path: str, numbers: Sequence[int]) -> dict[int, Image.Image]:
    """{number: frame} of a folder of frames or a video file, in RGB.

    A file is decoded from its start up to the last of them.

    Args:
        path: of the folder or the file.
        numbers: from 0, ascending.

    Raises:
        UnreadableImageError: a frame cannot be decoded.
        ConfigError: PyAV is not installed.
    """
    if os.path.isdir(path):
        files = frame_files(path)
        if numbers[-1] >= len(files):
            reason = f"there is no frame {numbers[-1]} any more; it has {len(files)}"
            raise UnreadableImageError([(path, reason)], "video")
        return {number: open_rgb(files[number]) for number in numbers}
    wanted, frames = set(numbers), {}
    with _opened(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                DECODED.hold(frame.width * frame.height)
                frames[number] = frame.to_image()
            if len(frames) == len(wanted):
                return frames
            last = number + 1
        raise ValueError(f"it ends behind frame {last} and is to have {numbers[-1] + 1} or more")


def check_video(path: str, length: int) -> None:
    """Raises `UnreadableImageError` if the headers of a folder's frames, or a file, are broken."""
    if os.path.isdir(path):
        for file in frame_files(path):
            image_size(file)
    read_frames(path, [length - 1])


@contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Any]]:
    """The container of a video file and its first video stream."""
    av = require("av", extra="video", purpose="reading video files")
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise ValueError("it holds no video")
            yield container, container.streams.video[0]
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImageError([(path, " ".join(str(reason).split())[:200])], "video") from None
