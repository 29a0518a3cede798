"""Predictions of a run or of an exported file for pictures."""

from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..core import ConfigError, DataError
from ..data.clip_folders import list_videos
from ..data.listing import Listing
from ..data.preparation import Placement, PreparedPicture
from ..data.threads import map_in_threads
from ..functional.places import resize_scores
from ..modules.detector_output import Detections
from .predictions import Prediction, Predictions, ScoredBox, ScoredClass
from .predictor import Predictor

Pictures = str | Path | Iterable[str | Path]
TOP, MIN_SCORE = 5, 0.25
_MAX_BATCH_SIZE = 32
_MAX_BATCH_PIXELS = 1 << 20  # a segmenter has scores for each of them


def check_paths(pictures: Pictures) -> list[Path]:
    """The files and folders that are given.

    Raises:
        DataError: one does not exist, is no path, or there is none.
    """
    one = isinstance(pictures, str | Path) or not isinstance(pictures, Iterable)
    given: list[Any] = [pictures] if one else list(cast(Iterable[Any], pictures))
    for picture in given:
        if not isinstance(picture, str | Path):
            raise DataError(
                f"pictures are paths of files or folders, and this is {type(picture).__name__}; "
                "save it as a picture, such as pictures/a.png, and give that"
            )
    if not given:
        raise DataError("no picture is given; name pictures, or a folder of them")
    for path in map(Path, given):
        if not path.exists():
            raise DataError(f"there is no picture and no folder {path}")
    return [Path(path) for path in given]


def list_pictures(pictures: Pictures, *, videos: bool = False) -> list[Path]:
    """The files that are given, and all pictures in folders that are given; or all videos.

    Raises:
        DataError: there is no such file, or a folder holds no picture or video.
    """
    files: dict[Path, None] = {}
    for path in check_paths(pictures):
        if not path.is_dir():
            files[path] = None
            continue
        inside = list_videos(path) if videos else [*Listing().class_images([path])[0]]
        if not inside:
            raise DataError(f"there is no {'video' if videos else 'picture'} in {path}")
        files |= dict.fromkeys(map(Path, inside))
    return list(files)


def predict_pictures(
    predictor: Predictor, pictures: Pictures, *, top: int = TOP, min_score: float = MIN_SCORE
) -> Predictions:
    """Predict all pictures; those that cannot be read are passed over and named in the result.

    Args:
        predictor: of a run or a file.
        pictures: files, and folders with files at any depth.
        top: number of classes of a classified picture.
        min_score: lowest score of a box.

    Raises:
        ConfigError: `top` or `min_score` is out of range.
        DataError: a file does not exist, or there is no picture.
    """
    if predictor.task == "embedding":
        raise ConfigError(
            "the network gives embeddings and knows no class; fine-tune it on images with labels, "
            "by train --weights with its run, or export it and read its output"
        )
    if top < 1:
        raise ConfigError(f"top={top} must be 1 or more")
    if not 0 <= min_score <= 1:
        raise ConfigError(f"min_score={min_score:g} is no score; give 0 … 1")
    read: list[Prediction] = []
    unreadable: dict[Path, str] = {}
    paths = list_pictures(pictures, videos=predictor.preparation.clip is not None)
    size = _batch_size(predictor)
    for batch in (paths[i : i + size] for i in range(0, len(paths), size)):
        results = map_in_threads(lambda path: _read(predictor, path), batch)
        unreadable |= {p: r for p, r in zip(batch, results, strict=True) if isinstance(r, str)}
        prepared = {
            path: result
            for path, result in zip(batch, results, strict=True)
            if isinstance(result, PreparedPicture)
        }
        if prepared:
            read += _predictions(predictor, prepared, top, min_score)
    return Predictions(predictor.name, predictor.task, predictor.classes, read, unreadable)


def _batch_size(predictor: Predictor) -> int:
    pixels = prod(predictor.preparation.shape[1:])
    return max(1, min(_MAX_BATCH_SIZE, _MAX_BATCH_PIXELS // pixels))


def _read(predictor: Predictor, path: Path) -> PreparedPicture | str:
    """The picture, or the sentence that says why it cannot be read."""
    try:
        return predictor.preparation.read(path)
    except DataError as error:
        return str(error)


def _predictions(
    predictor: Predictor, prepared: dict[Path, PreparedPicture], top: int, min_score: float
) -> list[Prediction]:
    """The predictions for one batch."""
    pixels = torch.stack([picture.pixels for picture in prepared.values()])
    placed = [(path, picture.placement) for path, picture in prepared.items()]
    outputs, size = predictor.run(pixels), (pixels.shape[-2], pixels.shape[-1])
    names = predictor.classes
    if predictor.task == "classification":
        probabilities = outputs.float().softmax(1).cpu()
        return [
            Prediction(*p, classes=_most_probable(x, names, top))
            for p, x in zip(placed, probabilities, strict=True)
        ]
    if predictor.task == "segmentation":
        masks = resize_scores(outputs, size).argmax(1).to(torch.uint8).cpu()
        return [
            Prediction(*p, classes=_shares(p[1], mask, names), input_mask=mask)
            for p, mask in zip(placed, masks, strict=True)
        ]
    return [
        Prediction(*p, boxes=_boxes(p[1], detections, names, min_score))
        for p, detections in zip(placed, outputs.detections(size), strict=True)
    ]


def _most_probable(probabilities: Tensor, names: Sequence[str], top: int) -> list[ScoredClass]:
    best = probabilities.topk(min(top, len(names)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [ScoredClass(names[k], score) for k, score in pairs]


def _shares(placement: Placement, mask: Tensor, names: Sequence[str]) -> list[ScoredClass]:
    """The parts of the picture that its classes fill, the largest first."""
    pixels = placement.mask_in_picture(mask).flatten()
    counts = torch.bincount(pixels, minlength=len(names))[: len(names)]
    shares = (counts / counts.sum()).tolist()
    ordered = sorted(range(len(names)), key=lambda k: -shares[k])
    return [ScoredClass(names[k], shares[k]) for k in ordered if shares[k]]


def _boxes(
    placement: Placement, detections: Detections, names: Sequence[str], min_score: float
) -> list[ScoredBox]:
    kept = (detections.scores >= min_score).cpu()
    boxes = placement.boxes_in_picture(detections.boxes.float().cpu()[kept])
    columns = (c.cpu()[kept].tolist() for c in (detections.labels, detections.scores))
    rows = zip(*columns, boxes.tolist(), strict=True)
    return [ScoredBox(names[k], score, *corners) for k, score, corners in rows]
