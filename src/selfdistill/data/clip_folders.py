"""Folders of videos with one folder per class; a video is a folder of frames, or a file."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..core import DataError, nearest
from .clips import ClipFiles, ClipLength, InMemoryClips
from .images import map_images
from .listing import subfolders
from .parts import SPLITS, by_split, single, split_of_name
from .read_video import VIDEO_EXTENSIONS, frame_files, is_video, video_length
from .splits import DatasetSplits, check_folder, promote_val_to_test

SHORT_VIDEOS = ("loop", "refuse")
"""What becomes of a video that is shorter than a clip: it starts again, or all is refused."""
_SIZE = (224, 224)  # until the size is known
_LISTED = 3


def read_clip_folders(path: Path, clip: ClipLength) -> DatasetSplits:
    """List the videos below a folder, and count their frames.

    Either PATH holds one folder per class, or PATH/train does, with PATH/val or PATH/test next to
    it (or other usual names, see `split_of_name`); `val` alone becomes the test part, as of images.
    In the folder of a class, or below, every folder that holds pictures is a video, whose frames
    are in the order of the numbers in their names, and every video file is one.

    Args:
        path: of the folder.
        clip: frames of a clip.

    Raises:
        DataError: no folder, no video in a class, fewer than two classes, unknown classes, or a
            part that is not understood.
        UnreadableImageError: a video file that cannot be opened.
        ConfigError: there are video files, and PyAV is not installed.
    """
    check_folder(path)
    parts, notes = _parts(path)
    classes = [folder.name for folder in subfolders(parts["train"])]
    if len(classes) < 2:
        raise DataError(
            f"{parts['train']} holds {len(classes)} folders of classes; two are the least, each "
            "with a folder of frames or a file for each video"
        )
    labeled = {split: _labeled_paths(folder, classes, split) for split, folder in parts.items()}
    everything = [path for pairs in labeled.values() for path, _ in pairs]
    lengths = iter(map_images(video_length, everything))  # all that are broken are named at once
    splits = {}
    for split, pairs in labeled.items():
        paths, labels = zip(*pairs, strict=True)
        counts = torch.tensor([next(lengths) for _ in paths])
        splits[split] = ClipFiles(paths, counts, torch.tensor(labels), clip, _SIZE)
    val, test = promote_val_to_test(splits.get("val"), splits.get("test"))
    return DatasetSplits(splits["train"], val, test, classes, flip=True, notes=tuple(notes))


def _parts(path: Path) -> tuple[dict[str, Path], list[str]]:
    """Folders of the parts, all of it as `train` where there are none, and notes on others."""
    folders = subfolders(path)
    named = [folder for folder in folders if split_of_name(folder.name)]
    if not named:
        return {"train": path}, []
    others = [folder.name for folder in folders if folder not in named]
    more = ", …" * (len(others) > _LISTED)
    beside = f"{', '.join(others[:_LISTED])}{more}"
    note = f"beside the parts, {path} holds {beside}, which is left out"
    return single(by_split(named)), [note] if others else []


def _labeled_paths(folder: Path, classes: Sequence[str], split: str) -> list[tuple[str, int]]:
    """The videos of a part with their labels, class by class.

    Raises:
        DataError: a folder is of no class, pictures lie right in one of a class, or there is no
            video in a class of the training part, or in all of another.
    """
    pairs: list[tuple[str, int]] = []
    for inner in subfolders(folder):
        if inner.name not in classes:
            hint = nearest(inner.name, classes)
            raise DataError(f"{inner} is no class of the training set{hint}")
        if frames := frame_files(inner):
            raise DataError(
                f"{frames[0]} lies right in the folder of a class; make a folder of each video "
                "with its frames, or give --task classification for pictures"
            )
        videos = list_videos(inner)
        if split == "train" and not videos:
            raise DataError(
                f"there is no video in {inner}; it needs CLASS/VIDEO/000.jpg … or CLASS/VIDEO with "
                f"one of {', '.join(VIDEO_EXTENSIONS)}"
            )
        pairs += [(video, classes.index(inner.name)) for video in videos]
    if not pairs:
        raise DataError(f"there is no video in class folders below {folder}")
    return pairs


def list_videos(folder: Path) -> list[str]:
    """Folders that hold pictures, and video files: in a folder, below, or it itself; sorted."""
    paths: list[str] = []
    pending = [folder]
    while pending:
        inner = pending.pop()
        paths += [str(inner)] if frame_files(inner) else []
        paths += [str(p) for p in inner.iterdir() if is_video(p.name) and p.is_file()]
        pending += subfolders(inner)
    return sorted(paths)


def short_video_notes(splits: DatasetSplits, policy: str) -> tuple[str, ...]:
    """Sentences on videos that are shorter than a clip, one a part.

    Args:
        splits: of `ClipFiles` or `InMemoryClips`.
        policy: one of `SHORT_VIDEOS`.

    Raises:
        DataError: there are some, and they are refused.
    """
    notes = []
    for split in SPLITS:
        videos = getattr(splits, split)
        if not isinstance(videos, ClipFiles | InMemoryClips):
            continue
        short = (videos.lengths < videos.clip.span).nonzero().flatten().tolist()
        if not short:
            continue
        name = f" ({videos.path(short[0])})" if isinstance(videos, ClipFiles) else ""
        text = (
            f"{len(short):,} of {len(videos):,} {split} videos are shorter than the "
            f"{videos.clip.span} frames of a clip, the first with {videos.lengths[short[0]]}{name}"
        )
        if policy == "refuse":
            raise DataError(
                f"{text}; remove them, lower --clip-frames or --clip-stride, or give "
                "--short-videos loop"
            )
        notes.append(f"{text}: they start again behind their end")
    return tuple(notes)
