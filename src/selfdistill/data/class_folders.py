"""Folders of images with one folder per class."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..core import DataError, nearest
from .file_paths import FilePaths
from .image_set import ImageSet
from .images import ImageFiles, load_splits
from .kept_listing import ListedImages, listed_images
from .listing import Listing, label_list_hint, subfolders
from .open_image import EXTENSIONS, UnreadableImageError
from .parts import by_split, resembles_part, single, split_of_name
from .splits import DatasetSplits, MeanStd, check_folder, promote_val_to_test
from .text_files import read_lines

IMAGENET: MeanStd = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_ANNOTATIONS = "val_annotations.txt"
_IMAGE_FOLDERS = ({"images"}, {"imgs"}, {"pictures"}, {"photos"})  # are no classes
_IMAGES = {"images", "imgs", "img", "image", "pictures", "photos", "jpegimages", "jpegs"}
_BELONGINGS = {"annotations", "annotation", "annots", "labels", "label", "masks", "mask", "xmls"}
SIZE = 224  # by default, where images differ in size
RESIZE_RATIO = 256 / 224
_IN_MEMORY = 2 << 30  # bytes of decoded images that are kept
_MAX_HEADERS = 2_000  # of a split


def read_class_folders(path: Path) -> DatasetSplits:
    """List the images below a folder, without decoding them.

    Either PATH holds one folder per class, or PATH/train does, with PATH/val or PATH/test next to
    it (or other usual names, see `split_of_name`). With `train`, `val` and `test` all three are
    used. With `train` and `val` alone, `val` becomes the test split, as is the custom where the
    labels of the test images are not public (ImageNet, TinyImageNet), and a validation split is to
    be held out of `train`. TinyImageNet's `val/images` with `val/val_annotations.txt` is supported;
    a part without labels is left out.

    Classes are the sorted names of the folders; images may lie in folders further below.

    Raises:
        DataError: no folder, no image in a class, fewer than two classes, unknown classes, or a
            part that is not understood.
    """
    check_folder(path)
    listed = listed_images(path, "class folders", lambda listing: _listed(path, listing))
    splits = {
        split: ImageFiles(paths, torch.from_numpy(labels).long(), (SIZE, SIZE), RESIZE_RATIO)
        for split, (paths, labels) in listed.parts.items()
    }
    val, test = promote_val_to_test(splits.get("val"), splits.get("test"))
    return DatasetSplits(splits["train"], val, test, listed.classes, flip=True, notes=listed.notes)


def _listed(path: Path, listing: Listing) -> ListedImages:
    """The images of all parts with their labels."""
    parts = _parts(path, listing) or {"train": path}
    left_out = _unread(path, parts, listing)
    classes = [folder.name for folder in listing.subfolders(parts["train"])]
    splits = {}
    for split, folder in parts.items():
        if split == "train" or _has_labels(folder, classes, listing):
            splits[split] = _labeled(folder, classes, listing)
        else:
            left_out.append(f"{folder} holds no folders of classes and is left out")
    _check_classes(parts["train"], splits["train"][1], classes)
    return ListedImages(classes, splits, (*left_out, *listing.notes()))


def _parts(path: Path, listing: Listing) -> dict[str, Path]:
    """Folders of the parts; none where PATH holds the classes themselves."""
    folders = {
        folder: {inner.name for inner in listing.subfolders(folder)}
        for folder in listing.subfolders(path)
    }
    named = [folder for folder in folders if split_of_name(folder.name)]
    one_part = len({split_of_name(folder.name) for folder in named}) == 1
    if one_part and len(named) < len(folders) and not any(map(folders.get, named)):
        named = []  # a class may be called train, too, and holds pictures then
    if not named:
        _refuse_parts(path, folders)
        return {}
    train = next((f for f in named if split_of_name(f.name) == "train"), None)
    classes = folders[train] if train else set()
    others = [f for f in folders if f not in named]
    alike = [f for f in others if resembles_part(f.name) or folders[f] & classes]
    return single(by_split([*named, *alike]))


def _unread(path: Path, parts: Mapping[str, Path], listing: Listing) -> list[str]:
    """Notes on what lies beside the parts, or beside the classes in one of them."""
    beside = [f.name for f in listing.subfolders(path) if path not in parts.values()]
    beside = [name for name in beside if path / name not in parts.values()]
    more = ", …" * (len(beside) > 3)
    notes = (
        [f"beside the parts, {path} holds {', '.join(beside[:3])}{more}, which is left out"]
        if beside
        else []
    )
    loose = {folder: sum(1 for _ in pictures_in(folder)) for folder in parts.values()}
    return notes + [
        f"images in {folder} itself are of no class and left out: {count:,}"
        for folder, count in loose.items()
        if count
    ]


def _refuse_parts(path: Path, folders: Mapping[Path, set[str]]) -> None:
    """Raises `DataError` if folders that are to be classes are something else."""
    _refuse_belongings(path, [folder.name for folder in folders])
    inner = list(folders.values())
    names = ", ".join(folder.name for folder in list(folders)[:3])
    if len(inner) > 1 and inner[0] and all(one == inner[0] for one in inner):
        if all(split_of_name(name) for name in inner[0]):
            raise DataError(
                f"the classes {names} in {path} hold {', '.join(sorted(inner[0]))} each; put the "
                "parts outermost: train/CLASS, val/CLASS"
            )
        if inner[0] not in _IMAGE_FOLDERS and not any(any(pictures_in(f)) for f in folders):
            raise DataError(
                f"the folders {names} in {path} hold the same folders "
                f"({', '.join(sorted(inner[0])[:3])}), so they are parts and no classes; call them "
                "train, val and test, or put the pictures right into the classes"
            )
    for folder, names_below in folders.items():
        if names_below and names_below not in _IMAGE_FOLDERS and resembles_part(folder.name):
            raise DataError(
                f"{folder} looks like a part of the data, and its name does not say which; call it "
                "train, val or test, with the folders of classes right in it"
            )
    parts = [folder.name for folder in folders if resembles_part(folder.name)]
    if len(parts) > 1:
        raise DataError(
            f"{' and '.join(parts[:2])} in {path} look like parts of the data and no classes; call "
            "them train, val and test, with the folders of classes right in them"
        )


def _refuse_belongings(path: Path, names: Sequence[str]) -> None:
    images = [name for name in names if name.casefold() in _IMAGES]
    others = [name for name in names if name.casefold() in _BELONGINGS]
    if images and others:
        raise DataError(
            f"{images[0]} and {others[0]} in {path} hold images and what belongs to them, and no "
            "classes; give --task segmentation or detection, or make a folder of each class"
        )


def pictures_in(folder: Path) -> Iterator[Path]:
    """The pictures right in a folder, without hidden ones."""
    return (p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and p.name[0] != ".")


def _has_labels(folder: Path, classes: list[str], listing: Listing) -> bool:
    names = {inner.name for inner in listing.subfolders(folder)}
    if (folder / _ANNOTATIONS).is_file():
        return True
    return bool(names) and (names not in _IMAGE_FOLDERS or bool(names & set(classes)))


def _labeled(
    folder: Path, classes: list[str], listing: Listing
) -> tuple[FilePaths, npt.NDArray[np.int32]]:
    """The images of one split with their labels, sorted."""
    if (folder / _ANNOTATIONS).is_file():
        listing.stamp(str(folder / _ANNOTATIONS))
        pairs = _annotated(folder, classes)
        paths = FilePaths.of(file for file, _ in pairs)
        labels = np.array([label for _, label in pairs], np.int32)
    else:
        known = {name: label for label, name in enumerate(classes)}
        folders = listing.subfolders(folder)
        for inner in folders:
            if inner.name not in known:
                raise DataError(
                    f"{inner} is no class of the training set{nearest(inner.name, classes)}"
                )
        paths, counts = listing.class_images(folders)
        labels = np.repeat(np.array([known[inner.name] for inner in folders], np.int32), counts)
    if not len(paths):
        raise DataError(
            f"there is no picture in class folders below {folder}; "
            f"it needs FOLDER/CLASS/PICTURE with one of {', '.join(EXTENSIONS)}"
            f"{_table_hint(folder)}"
        )
    return paths, labels


def _table_hint(folder: Path) -> str:
    """A clause on a table of labels in a folder or, where it is a part, beside it."""
    beside = label_list_hint(folder.parent, "csv") if split_of_name(folder.name) else ""
    return label_list_hint(folder, "csv") or beside


def _annotated(folder: Path, classes: list[str]) -> list[tuple[str, int]]:
    """TinyImageNet's validation split: lines of file, class and a bounding box, tab-separated."""
    known = {name: label for label, name in enumerate(classes)}
    pairs = []
    for line in read_lines(folder / _ANNOTATIONS):
        file, name = [*line.split("\t"), ""][:2]
        if Path(file).name != file:
            raise DataError(
                f"{folder / _ANNOTATIONS} names the file {file}; it must lie in {folder / 'images'}"
            )
        if name not in known:
            raise DataError(
                f"{folder / _ANNOTATIONS} gives {file} the class '{name}', "
                f"which the training set lacks{nearest(name, classes)}"
            )
        pairs.append((str(folder / "images" / file), known[name]))
    return sorted(pairs)


def _check_classes(root: Path, labels: npt.NDArray[np.int32], classes: list[str]) -> None:
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if not count:
            raise DataError(f"there is no picture in {root / name}; add some or remove the folder")
    if len(classes) < 2:
        inner = len(subfolders(root / classes[0])) > 1
        hint = f"; did you mean folder:{root / classes[0]}?" if inner else _table_hint(root)
        raise DataError(
            f"{root} has the one class '{classes[0]}'; two class folders are the least{hint}"
        )


def load_or_stream(
    splits: Mapping[str, ImageFiles], size: tuple[int, int] | None
) -> Mapping[str, ImageSet]:
    """Set the size of the images, and decode them into memory if they fit into 2 GiB.

    Without a size images of one common size keep it, by the headers of at most 2,000 of each
    split; others are resized to 224 × 224. In memory the whole shorter side of an image is kept;
    streamed, 224/256 of it.
    """
    size = size or common_size(map(_sample, splits.values()))
    return at_size(splits, size or (SIZE, SIZE))


def at_size(splits: Mapping[str, ImageFiles], size: tuple[int, int]) -> Mapping[str, ImageSet]:
    """The images at a height and width, decoded into memory if they fit into 2 GiB."""
    pictures = sum(files.num_pictures for files in splits.values())
    if pictures * 3 * size[0] * size[1] <= _IN_MEMORY:
        return load_splits({s: files.with_size(size, 1.0) for s, files in splits.items()})
    return {s: files.with_size(size, RESIZE_RATIO) for s, files in splits.items()}


def _sample(files: ImageFiles) -> ImageFiles:
    """Up to `_MAX_HEADERS` images, evenly spaced: each start would read the headers of millions."""
    return files.spread(_MAX_HEADERS)


def common_size(splits: Iterable[ImageFiles]) -> tuple[int, int] | None:
    """Height and width that all images share, or None; stops at the first that differs.

    Those that cannot be read are passed over: decoding names all of them.
    """
    size = None
    for files in splits:
        for index in range(len(files)):
            try:
                stored = files.stored_size(index)
            except UnreadableImageError:
                continue
            if size not in (None, stored):
                return None
            size = stored
    return size
