"""Videos, of which clips are taken: random ones to train on, the central ones to evaluate by."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from PIL import Image
from torch import Tensor

from ..core import DataError, keyed_random
from .image_set import CropKeys
from .images import ImageFiles, map_images
from .in_memory import InMemoryImages
from .read_video import check_video, read_frames
from .targets import Targets

_START = keyed_random.purpose("start of a clip")


class ClipLength(NamedTuple):
    """Frames of a clip.

    Attributes:
        frames: their number T.
        stride: how many frames of the video from one to the next.
    """

    frames: int = 16
    stride: int = 1

    @property
    def span(self) -> int:
        """Frames of the video from the first of a clip to the last."""
        return (self.frames - 1) * self.stride + 1

    def central(self, lengths: Tensor) -> Tensor:
        """Numbers of the frames in the middle of videos of these lengths, (B,) -> (B, T) int64.

        A video that is shorter than a clip starts again behind its end.
        """
        return self._numbers((lengths - self.span).clamp(min=0) // 2, lengths)

    def random(
        self, lengths: Tensor, seed: int, epoch: int, sample: Tensor, view: int = 0
    ) -> Tensor:
        """As `central`, with a start of its own for each sample (B,) and view."""
        draw = keyed_random.bits(_START, seed, epoch, sample, view)
        return self._numbers(draw % (lengths - self.span + 1).clamp(min=1), lengths)

    def _numbers(self, start: Tensor, lengths: Tensor) -> Tensor:
        steps = torch.arange(0, self.span, self.stride, device=lengths.device)
        return (start[:, None] + steps) % lengths[:, None]


class InMemoryClips(InMemoryImages):
    """Videos in memory, on any device, in one tensor of all their frames.

    Args:
        frames: (F, C, H, W) uint8, video by video.
        lengths: (N,) int64, frames of each video.
        targets: of each video, on the same device; (N,) int64 are labels.
        clip: which frames are fetched.
    """

    def __init__(
        self, frames: Tensor, lengths: Tensor, targets: Targets | Tensor, clip: ClipLength
    ) -> None:
        self.lengths, self.clip = lengths, clip
        super().__init__(frames, targets)
        self.shape = _clip_shape(tuple(frames.shape[1:]), clip)

    def _check_counts(self) -> None:
        if len(self.lengths) != len(self) or int(self.lengths.sum()) != len(self.images):
            raise DataError(
                f"{len(self.images):,} frames are of {len(self.lengths):,} videos of "
                f"{int(self.lengths.sum()):,} frames with {len(self):,} targets; make them agree"
            )

    def fetch(self, index: Tensor) -> Tensor:
        """The central clips of videos, (B, C, T, H, W) uint8."""
        return self._clips(index, self.clip.central(self.lengths[index]))

    def fetch_view(
        self, index: Tensor, seed: int, epoch: int, sample: Tensor, view: int = 0
    ) -> Tensor:
        """Random clips of videos, (B, C, T, H, W) uint8."""
        lengths = self.lengths[index]
        return self._clips(index, self.clip.random(lengths, seed, epoch, sample, view))

    def _clips(self, index: Tensor, numbers: Tensor) -> Tensor:
        first = (self.lengths.cumsum(0) - self.lengths)[index]
        frames = self.images.index_select(0, (first[:, None] + numbers).flatten())
        clips = frames.view(*numbers.shape, *frames.shape[1:])  # (B, T, C, H, W)
        return clips.transpose(1, 2).contiguous()

    def take(self, index: Tensor) -> Self:
        """The videos at these indices, in this order."""
        lengths = self.lengths[index]
        first = (self.lengths.cumsum(0) - self.lengths)[index]
        own_first = lengths.cumsum(0) - lengths
        shift = (first - own_first).repeat_interleave(lengths)
        numbers = torch.arange(len(shift), device=shift.device) + shift
        subset = self._with_images(self.images.index_select(0, numbers))
        subset.lengths, subset.targets = lengths, self.targets.take(index)
        return subset

    def to(self, device: torch.device | str) -> Self:
        """The same videos on a device, without a copy if they are on it."""
        moved = super().to(device)
        moved.lengths = self.lengths.to(device)
        return moved

    def _with_images(self, images: Tensor) -> Self:
        changed = super()._with_images(images)
        changed.shape = _clip_shape(tuple(images.shape[1:]), self.clip)
        return changed


class ClipFiles(ImageFiles):
    """Videos, each a folder of frames or a file, whose frames are decoded on demand.

    Args:
        paths: the N folders and files.
        lengths: (N,) int64, frames of each video.
        targets: of each video; (N,) int64 are labels.
        clip: which frames are fetched.
        size: height and width of a fetched frame.
        resize_ratio: see `ImageFiles`.
    """

    def __init__(
        self,
        paths: Sequence[str | bytes | Path],
        lengths: Tensor,
        targets: Targets | Tensor,
        clip: ClipLength,
        size: tuple[int, int],
        resize_ratio: float = 1.0,
    ) -> None:
        super().__init__(paths, targets, size, resize_ratio)
        self.lengths, self.clip = lengths, clip
        self.shape = _clip_shape(self.shape, clip)

    @property
    def num_pictures(self) -> int:
        """Frames of all videos."""
        return int(self.lengths.sum())

    def fetch(self, index: Tensor) -> Tensor:
        """The central clips of videos, decoded one after the other, (B, C, T, H, W) uint8."""
        return torch.stack([self.decode(i, [None])[0] for i in index.tolist()])

    def take(self, index: Tensor) -> Self:
        """The videos at these indices, in this order."""
        subset = super().take(index)
        subset.lengths = self.lengths[index]
        return subset

    def decode(self, index: int, keys: Sequence[CropKeys | None]) -> list[Tensor]:
        """A clip (C, T, H, W) of one video for each key: a random one, or for None the central.

        All frames of a clip are cropped alike.
        """
        length = self.lengths[index : index + 1]
        numbers = [self._numbers(length, key) for key in keys]
        frames = read_frames(self.path(index), sorted(set().union(*numbers)))
        return [
            torch.stack([self.crop(frames[number], key) for number in own], 1)
            for own, key in zip(numbers, keys, strict=True)
        ]

    def _numbers(self, length: Tensor, key: CropKeys | None) -> list[int]:
        if key is None:
            numbers = self.clip.central(length)
        else:
            sample = torch.tensor([key.sample])
            numbers = self.clip.random(length, key.seed, key.epoch, sample, key.view)
        return [int(number) for number in numbers[0]]

    def load_into_memory(self) -> InMemoryClips:
        """Decode all frames of all videos, on several threads.

        Raises:
            UnreadableImageError: some cannot be decoded; names all of them.
        """
        frames = torch.empty(self.num_pictures, self.shape[0], *self.shape[2:], dtype=torch.uint8)
        first = self.lengths.cumsum(0) - self.lengths

        def decode(index: int) -> None:
            start, length = int(first[index]), int(self.lengths[index])
            for number, image in read_frames(self.path(index), range(length)).items():
                frames[start + number] = self.fit_to_size(image)

        map_images(decode, range(len(self)))
        return InMemoryClips(frames, self.lengths, self.targets, self.clip)

    def open(self, index: int) -> Image.Image:
        """The first frame of a video at its stored size, in RGB."""
        return read_frames(self.path(index), [0])[0]

    def stored_size(self, index: int) -> tuple[int, int]:
        """Height and width of the frames."""
        frame = self.open(index)
        return frame.height, frame.width

    def check_readable(self, index: int) -> None:
        """Raises `UnreadableImageError` if a frame of a video cannot be decoded."""
        check_video(self.path(index), int(self.lengths[index]))


def _clip_shape(frame: tuple[int, ...], clip: ClipLength) -> tuple[int, ...]:
    """(C, H, W) of a frame, or (C, T, H, W) of a clip, -> (C, T, H, W)."""
    return (frame[0], clip.frames, *frame[-2:])
