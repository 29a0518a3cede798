"""What a network predicts for pictures, and its forms: JSON, CSV, drawings and masks."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from ..data.preparation import Placement
from ..records.csv_text import csv_text

SCORE_NAMES = {"classification": "confidence", "segmentation": "share", "detection": "score"}
"""{task: what the number beside a class is}: a probability, a part of the picture, or a score."""


class ScoredClass(NamedTuple):
    """A class, and its probability or its share of the picture's pixels."""

    name: str
    score: float


class ScoredBox(NamedTuple):
    """An object: its class, score and corners in pixels of the picture."""

    name: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Prediction:
    """The prediction for one picture.

    Attributes:
        path: of the picture, as it was given; of the n-th in memory ``picture-n``.
        placement: of the picture in the network's input.
        classes: of a classifier the most probable ones, of a segmenter those that occur; the
            highest score first.
        boxes: of a detector, the highest score first.
        input_mask: of a segmenter, (H, W) uint8 classes of the network's input.
        image: the picture, if it was given in memory.
    """

    path: Path
    placement: Placement
    classes: Sequence[ScoredClass] = ()
    boxes: Sequence[ScoredBox] = ()
    input_mask: Tensor | None = field(default=None, repr=False)
    image: Image.Image | None = field(default=None, repr=False)

    @property
    def mask(self) -> npt.NDArray[np.uint8] | None:
        """The class of each pixel of the picture; 255 where the preparation cut it off."""
        if self.input_mask is None:
            return None
        mask: npt.NDArray[np.uint8] = self.placement.mask_in_picture(self.input_mask).numpy()
        return mask


@dataclass(frozen=True)
class Predictions:
    """The predictions of one network for pictures.

    Attributes:
        predictor: the network's name in its run.
        task: classification, segmentation or detection.
        classes: names of all classes.
        pictures: a prediction for each picture that could be read.
        unreadable: {picture: why it could not be read}.
    """

    predictor: str
    task: str
    classes: Sequence[str]
    pictures: Sequence[Prediction]
    unreadable: dict[Path, str]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Prediction:
        return self.pictures[index]

    def to_json(self) -> str:
        """All of it but the masks, as JSON."""
        document = {
            "predictor": self.predictor,
            "task": self.task,
            "classes": list(self.classes),
            "pictures": [self._fields(prediction) for prediction in self.pictures],
            "unreadable": [
                {"picture": str(path), "reason": reason} for path, reason in self.unreadable.items()
            ],
        }
        return json.dumps(document, indent=1, ensure_ascii=False)

    def _fields(self, prediction: Prediction) -> dict[str, Any]:
        height, width = prediction.placement.size
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows(prediction)]
        kind = {"segmentation": "shares", "detection": "boxes"}.get(self.task, "classes")
        return {"picture": str(prediction.path), "width": width, "height": height, kind: rows}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers of a class or a box."""
        corners = ("x1", "y1", "x2", "y2") if self.task == "detection" else ()
        return ("class", SCORE_NAMES[self.task], *corners)

    def rows(self, prediction: Prediction) -> list[tuple[Any, ...]]:
        """The classes or the boxes of a picture, in the order of `columns`."""
        scored: Sequence[tuple[Any, ...]] = prediction.boxes or prediction.classes
        return [
            (name, round(score, 6), *(round(x, 2) for x in box)) for name, score, *box in scored
        ]

    def to_csv(self) -> str:
        """A line for each class or box of each picture."""
        lines = [(str(p.path), *row) for p in self.pictures for row in self.rows(p)]
        return csv_text(("picture", *self.columns), lines)
