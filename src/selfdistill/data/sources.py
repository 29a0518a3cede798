"""Data sets by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core import ConfigError, DataError, UnknownDataError, nearest
from . import (
    box_folders,
    class_folders,
    clip_folders,
    downloads,
    mask_folders,
    picture_folders,
)
from .clips import ClipLength
from .digits import read_digits
from .hold_out import hold_out_fraction, subsample
from .hugging_face import read_hugging_face
from .image_data import ImageData
from .images import ImageFiles
from .in_memory import InMemoryImages
from .kept_listing import CACHE
from .label_tables import read_label_table
from .npz import read_npz, read_npz_pictures
from .option_checks import ImageSize, both_sides, check_fraction, check_numbers, check_policies
from .shards import read_shards
from .splits import DatasetSplits, absent_classes, check_folder
from .targets import Unlabeled
from .text_files import check_class_names

_MAX_ZOOM = {"segmentation": mask_folders.MAX_ZOOM, "detection": box_folders.MAX_ZOOM}
_PATHS = ("folder:PATH", "csv:FILE", "npz:FILE", "wds:SHARDS", "hf:SET")
_IMAGES = ("digits", *downloads.CLASSIFICATION, *_PATHS)
SOURCES = {
    "classification": _IMAGES,
    "clips": ("folder:PATH", "npz:FILE"),
    "segmentation": ("voc", "folder:PATH"),
    "detection": ("voc", "folder:PATH"),
    "embedding": _IMAGES,
}
"""Names of data sets, and the prefixes of paths, by task."""
PREFIXES = ("folder:", "csv:", "npz:", "wds:", "hf:")
"""Beginnings of the names of data sets that are paths."""
_REGISTERED: dict[tuple[str, str], Callable[[Path], DatasetSplits]] = {}


def register_data(
    name: str, reader: Callable[[Path], DatasetSplits], *, task: str = "classification"
) -> None:
    """Make a data set of your own known by a name.

    Args:
        name: not that of another data set of the task.
        reader: from the directory of downloads to the splits.
        task: a name in `tasks.TASKS`.

    Raises:
        ConfigError: another data set has the name.
    """
    taken = _REGISTERED.get((task, name), reader) is not reader
    if taken or name in SOURCES.get(task, ()) or name.startswith(PREFIXES):
        raise ConfigError(f"'{name}' is taken by another data set; choose another name")
    _REGISTERED[task, name] = reader


def load(
    name: str,
    *,
    root: Path | str = CACHE,
    val_fraction: float = 0.1,
    image_size: ImageSize | None = None,
    max_train_images: int | None = None,
    task: str = "classification",
    ignore_index: int | None = None,
    empty_images: str = "keep",
    invalid_boxes: str = "refuse",
    clip_frames: int = ClipLength().frames,
    clip_stride: int = ClipLength().stride,
    short_videos: str = "loop",
) -> ImageData:
    """Load a data set and split it; the same call gives the same splits on every machine.

    A validation split of the source is kept. Otherwise a stratified fraction of the training images
    is held out, the same images whatever the seed of a run.

    Args:
        name: `digits` (no download), a set that torchvision downloads, `folder:PATH` with one
            folder per class (see `read_class_folders`), `csv:FILE` with a table of pictures and
            classes (see `read_label_table`), `npz:FILE` in MedMNIST's layout, `wds:SHARDS` in
            WebDataset's (see `read_shards`), or `hf:SET` of Hugging Face's `datasets` (see
            `read_hugging_face`). For segmentation and detection `voc`, or `folder:PATH` (see
            `read_mask_folder` and `read_box_folder`). For embeddings as for classification, without
            a label read, so that `folder:PATH` may hold pictures alone (see `read_picture_folder`).
            For clips `folder:PATH` (see `read_clip_folders`) or `npz:FILE`.
        root: directory of the downloads, and of indices of shards that cannot lie beside them.
        val_fraction: of the training images, held out for validation; 0 for none.
        image_size: side of the squares to resize all images to, or their height and width; images
            with boxes are letterboxed.
        max_train_images: size of a stratified subset of the training images, taken after the
            validation images.
        task: a key of `SOURCES`.
        ignore_index: a mask value that is no class, besides 255.
        empty_images: one of `box_folders.EMPTY_IMAGES`, for images without an object.
        invalid_boxes: one of `box_folders.INVALID_BOXES`, for boxes without area or out of their
            image.
        clip_frames, clip_stride: of the clips of videos, see `ClipLength`.
        short_videos: one of `clip_folders.SHORT_VIDEOS`.

    Raises:
        ConfigError: an option out of its range.
        DataError: an unknown name, or missing, corrupt or invalid data.
        ResourceError: a failed download.
    """
    check_fraction(val_fraction)
    check_numbers(image_size=image_size, max_train_images=max_train_images)
    check_numbers(clip_frames=clip_frames, clip_stride=clip_stride)
    check_policies(
        empty_images=(empty_images, box_folders.EMPTY_IMAGES),
        invalid_boxes=(invalid_boxes, box_folders.INVALID_BOXES),
        short_videos=(short_videos, clip_folders.SHORT_VIDEOS),
    )
    _check_task(name, task)
    directory = Path(root).expanduser()
    if registered := _REGISTERED.get((task, name)):
        splits = registered(directory)
    elif task == "segmentation":
        splits = _segmentation(name, directory, image_size, ignore_index)
    elif task == "detection":
        splits = _detection(name, directory, image_size, empty_images, invalid_boxes)
    elif task == "clips":
        splits = _clips(name, ClipLength(clip_frames, clip_stride), short_videos)
    elif task == "embedding":
        splits = _unlabeled(name, directory)
    elif task == "classification":
        splits = _classification(name, directory)
    else:
        raise _unknown_name(name, task)
    train, val = splits.train, splits.val
    if val is None:
        train, val = hold_out_fraction(train, val_fraction)
    notes = (*splits.notes, *check_class_names(splits.classes, name), *absent_classes(splits))
    splits = splits._replace(train=subsample(train, max_train_images), val=val, notes=notes)
    resized = _resize(splits, image_size, task)
    return replace(_image_data(name, resized, task), fit=splits.train.fit)


def _check_task(name: str, task: str) -> None:
    """Raises `DataError` if a folder holds the data of another task."""
    kind, _, path = name.partition(":")
    folder = Path(path).expanduser()
    recognizers = {
        "segmentation": mask_folders.is_mask_folder,
        "detection": box_folders.is_box_folder,
    }
    if kind != "folder" or not path:
        return
    check_folder(folder)
    if task in recognizers and recognizers[task](folder):
        return
    for other, is_data_of in recognizers.items():
        if is_data_of(folder):
            content = "masks" if other == "segmentation" else "boxes"
            remedy = f"give --task {other}"
            if task == "embedding":
                if other == "detection":  # texts, which are no pictures
                    continue
                remedy = "give the folder of the images alone"
            raise DataError(f"{folder} holds images with {content}; {remedy}")


def _unknown_name(name: str, task: str) -> UnknownDataError:
    folder = Path(name).is_dir()
    known = [*SOURCES.get(task, ()), *(other for kind, other in _REGISTERED if kind == task)]
    hint = f" (did you mean 'folder:{name}'?)" if folder else nearest(name, known)
    return UnknownDataError(f"there is no data set '{name}' for {task}{hint}")


def _folder(name: str) -> Path | None:
    """The path of `folder:PATH`."""
    kind, _, path = name.partition(":")
    return Path(path).expanduser() if path and kind == "folder" else None


def _classification(name: str, root: Path) -> DatasetSplits:
    if folder := _folder(name):
        return class_folders.read_class_folders(folder)
    kind, _, path = name.partition(":")
    if path and kind == "csv":
        return read_label_table(Path(path).expanduser())
    if path and kind == "npz":
        return read_npz(Path(path).expanduser())
    if path and kind == "wds":
        return read_shards(path, root)
    if path and kind == "hf":
        return read_hugging_face(path)
    if name == "digits":
        return read_digits()
    if name in downloads.CLASSIFICATION:
        return downloads.classification_splits(name, root)
    raise _unknown_name(name, "classification")


def _unlabeled(name: str, root: Path) -> DatasetSplits:
    """Images of a set for classification, or such without labels, whose strata alone are kept."""
    kind, _, path = name.partition(":")
    if folder := _folder(name):
        return picture_folders.read_picture_folder(folder)
    if path and kind == "npz":
        splits = read_npz_pictures(Path(path).expanduser())
    elif path and kind == "wds":
        return read_shards(path, root, labeled=False)
    elif path and kind == "hf":
        return read_hugging_face(path, labeled=False)
    else:
        labeled = _REGISTERED.get(("classification", name))
        splits = labeled(root) if labeled else _classification(name, root)
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    bare: Any = {n: x and x.with_targets(Unlabeled(x.labels)) for n, x in parts.items()}
    return splits._replace(**bare, classes=[])


def _clips(name: str, clip: ClipLength, short_videos: str) -> DatasetSplits:
    kind, _, path = name.partition(":")
    if folder := _folder(name):
        splits = clip_folders.read_clip_folders(folder, clip)
    elif path and kind == "npz":
        splits = read_npz(Path(path).expanduser(), clip)
    else:
        raise _unknown_name(name, "clips")
    notes = clip_folders.short_video_notes(splits, short_videos)
    return splits._replace(notes=(*splits.notes, *notes))


def _segmentation(
    name: str, root: Path, image_size: ImageSize | None, ignore_index: int | None
) -> DatasetSplits:
    if folder := _folder(name):
        return mask_folders.read_mask_folder(
            folder, image_size=image_size, ignore_index=ignore_index
        )
    if name == "voc":
        return downloads.voc_segmentation(root, image_size, ignore_index)
    raise _unknown_name(name, "segmentation")


def _detection(
    name: str, root: Path, image_size: ImageSize | None, empty_images: str, invalid_boxes: str
) -> DatasetSplits:
    if folder := _folder(name):
        return box_folders.read_box_folder(
            folder, image_size=image_size, empty_images=empty_images, invalid_boxes=invalid_boxes
        )
    if name == "voc":
        return downloads.voc_detection(root, image_size, empty_images, invalid_boxes)
    raise _unknown_name(name, "detection")


def _resize(splits: DatasetSplits, image_size: ImageSize | None, task: str) -> DatasetSplits:
    """The splits at one size; those in files are decoded into memory if they fit."""
    images = {split: getattr(splits, split) for split in ("train", "val", "test")}
    files = {split: s for split, s in images.items() if isinstance(s, ImageFiles)}
    resized: dict[str, Any] = {}
    size = both_sides(image_size)
    if task == "detection":
        resized |= box_folders.load_or_stream(files)
    elif files:
        resized |= class_folders.load_or_stream(files, size)
    for split, in_memory in images.items():
        if isinstance(in_memory, InMemoryImages) and size:
            resized[split] = in_memory.resized(size)
    return splits._replace(**resized)


def _image_data(name: str, splits: DatasetSplits, task: str) -> ImageData:
    train = splits.train
    streamed = not isinstance(train, InMemoryImages)
    mean, std = splits.mean_std or (
        train.mean_and_std() if isinstance(train, InMemoryImages) else class_folders.IMAGENET
    )
    max_zoom = _MAX_ZOOM.get(task, 1.0)
    return ImageData(
        name,
        train,
        splits.val,
        splits.test,
        splits.classes,
        mean,
        std,
        crop_padding=0 if streamed or max_zoom > 1 else max(1, min(train.shape[-2:]) // 8),
        flip=splits.flip,
        resized_crop=streamed and max_zoom == 1,
        max_zoom=max_zoom,
        task=task,
        layout=splits.layout,
        notes=splits.notes,
    )
