"""Predictions of a run or of an exported file for pictures."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..core import ConfigError, DataError
from ..data.preparation import Placement, PreparedPicture
from ..data.threads import map_in_threads
from ..functional.places import resize_scores
from ..modules.detector_output import Detections
from .pictures import Pictures, list_pictures
from .predictions import Prediction, Predictions, ScoredBox, ScoredClass
from .predictor import Predictor

TOP, MIN_SCORE = 5, 0.25
_MAX_BATCH_SIZE = 32
_MAX_BATCH_PIXELS = 1 << 20  # a segmenter has scores for each of them


def predict_pictures(
    predictor: Predictor, pictures: Pictures, *, top: int = TOP, min_score: float = MIN_SCORE
) -> Predictions:
    """Predict all pictures; those that cannot be read are passed over and named in the result.

    Args:
        predictor: of a run or a file.
        pictures: files, folders with files at any depth, or pictures in memory.
        top: number of classes of a classified picture.
        min_score: lowest score of a box.

    Raises:
        ConfigError: `top` or `min_score` is out of range.
        DataError: a file does not exist, or there is no picture.
    """
    if predictor.task == "embedding":
        raise ConfigError(
            "the network gives embeddings and knows no class; fine-tune it on images with labels, "
            "by train --weights with its run, or read what its exported file gives"
        )
    if top < 1:
        raise ConfigError(f"top={top} must be 1 or more")
    if not 0 <= min_score <= 1:
        raise ConfigError(f"min_score={min_score:g} is no score; give 0 … 1")
    read: list[Prediction] = []
    unreadable: dict[Path, str] = {}
    listed = list_pictures(pictures, videos=predictor.preparation.clip is not None)
    paths, size = list(listed), _batch_size(predictor)
    for batch in (paths[i : i + size] for i in range(0, len(paths), size)):
        results = map_in_threads(lambda path: _read(predictor, listed[path]), batch)
        by_path = dict(zip(batch, results, strict=True))
        unreadable |= {path: result for path, result in by_path.items() if isinstance(result, str)}
        prepared = {
            path: result for path, result in by_path.items() if isinstance(result, PreparedPicture)
        }
        if prepared:
            of_batch = _predictions(predictor, prepared, top, min_score)
            read += [_with_image(prediction, listed[prediction.path]) for prediction in of_batch]
    return Predictions(predictor.name, predictor.task, predictor.classes, read, unreadable)


def _batch_size(predictor: Predictor) -> int:
    pixels = prod(predictor.preparation.shape[1:])
    return max(1, min(_MAX_BATCH_SIZE, _MAX_BATCH_PIXELS // pixels))


def _read(predictor: Predictor, picture: Path | Image.Image) -> PreparedPicture | str:
    """The picture, or the sentence that says why it cannot be read."""
    try:
        return predictor.preparation.read(picture)
    except DataError as error:
        return str(error)


def _with_image(prediction: Prediction, picture: Path | Image.Image) -> Prediction:
    """A prediction that holds its picture where that is no file."""
    return prediction if isinstance(picture, Path) else replace(prediction, image=picture)


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
