"""Predictions as a folder: a table, and for scenes drawings and masks."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core import RunBusyError, atomic_directory
from ..data.images import as_tensor
from ..data.open_image import open_rgb
from ..tasks.colors import colors
from ..tasks.detection import draw_boxes
from ..tasks.segmentation import draw_labels
from .predictions import Prediction, Predictions

TABLE = "predictions.csv"
_MOST = 1280  # pixels of the longer side of a drawing
_PALETTE = 256


def check_free(directory: str | Path) -> None:
    """Raises `RunBusyError` if the folder exists."""
    if Path(directory).exists():
        raise RunBusyError(f"{directory} exists already; name another folder, or remove it")


def save_predictions(predictions: Predictions, directory: str | Path) -> Path:
    """Write `predictions.csv`, a drawing of each scene and, of a segmenter, a mask.

    The drawing of `street.jpg` is `street.png`, its mask `street-mask.png`: a palette image of the
    picture's size whose values are classes, 255 where the picture was cut off.

    Args:
        predictions: of any task; of classifiers there is the table alone.
        directory: to make; it appears when all of it is written.

    Raises:
        RunBusyError: the folder exists.
        ResourceError: it cannot be written.
    """
    check_free(directory)
    with atomic_directory(Path(directory)) as draft:
        (draft / TABLE).write_text(predictions.to_csv(), encoding="utf-8")
        if predictions.task != "classification":
            for prediction, stem in zip(predictions, _stems(predictions), strict=True):
                _drawing(predictions, prediction).save(draft / f"{stem}.png")
                if (mask := prediction.mask) is not None:
                    image = Image.fromarray(mask)
                    image.putpalette([c for color in colors(_PALETTE) for c in color])
                    image.save(draft / f"{stem}-mask.png")
    return Path(directory)


def _stems(predictions: Predictions) -> list[str]:
    """A file name for each picture; what several pictures or masks would share is numbered."""
    stems: list[str] = []
    taken: set[str] = set()
    for prediction in predictions:
        stem, number = prediction.path.stem, 1
        while {stem, f"{stem}-mask"} & taken:
            number += 1
            stem = f"{prediction.path.stem}-{number}"
        stems.append(stem)
        taken |= {stem, f"{stem}-mask"}
    return stems


def _drawing(predictions: Predictions, prediction: Prediction) -> Image.Image:
    """The picture with its boxes or under its mask; a large one is shrunk."""
    picture = open_rgb(str(prediction.path) if prediction.image is None else prediction.image)
    height, width = prediction.placement.size
    scale = min(1.0, _MOST / max(height, width))
    picture = picture.resize((max(1, round(width * scale)), max(1, round(height * scale))))
    image, names = as_tensor(picture), predictions.classes
    if (mask := prediction.mask) is not None:
        small = Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST)
        labels = torch.from_numpy(np.array(small))
        return _as_picture(draw_labels(image, labels, len(names)))
    boxes = torch.tensor([box[2:] for box in prediction.boxes]).reshape(-1, 4) * scale
    labels = torch.tensor([names.index(box.name) for box in prediction.boxes])
    captions = [f"{box.name} {box.score:.2f}" for box in prediction.boxes]
    return _as_picture(draw_boxes(image, boxes, labels, captions))


def _as_picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())
