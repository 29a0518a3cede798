"""`data.json` and `teacher.json`: the data and the teacher that a run was trained with."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from ..core import ArtifactError
from ..data.preparation import Preparation
from .csv_text import read_record

DATA_FILE = "data.json"
TEACHER_FILE = "teacher.json"


@dataclass(frozen=True)
class PartRecord:
    """One part of a data set.

    Attributes:
        images: their number.
        labels: SHA-256 of the labels in order.
        files: SHA-256 of the paths in order, relative to the part; "" of images in memory.
    """

    images: int
    labels: str
    files: str


@dataclass(frozen=True)
class ExtraRecord:
    """Images without labels that a network learned from beside its training images.

    Attributes:
        name: as the recipe names them.
        images: their number.
        sha256: of their paths and sizes, or of their pixels.
    """

    name: str
    images: int
    sha256: str

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The record whose fields these are, as JSON has them.

        Raises:
            ValueError, LookupError, TypeError: they are of something else.
        """
        return cls(str(fields["name"]), int(fields["images"]), str(fields["sha256"]))


@dataclass(frozen=True)
class TrainingData:
    """The data that a network was trained on.

    Attributes:
        name: of the data set; empty for a network that was not trained here, as is `task`.
        task: what its labels mean, a key of `tasks.TASKS`.
        classes: their names, in order.
        mean, std: of each channel, by which images were normalized.
        normalization: whose they are, a phrase; "" where it is not known.
        own_moments: mean and std of the set itself; None where they are not known.
        extra: images without labels that were learned from, too, if there were any.
        shape: (C, H, W) of the images or (C, T, H, W) of the clips; () where it is not known.
        parts: "train", "val" and "test", where there are such images.
        preparation: of a picture; None for a network that was not trained here.
    """

    name: str
    task: str
    classes: Sequence[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shape: tuple[int, ...] = ()
    parts: Mapping[str, PartRecord] = field(default_factory=dict)
    preparation: Preparation | None = None
    normalization: str = ""
    own_moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    extra: ExtraRecord | None = None

    def to_json(self) -> str:
        """The text of `data.json`; without extra images that of the runs that knew none."""
        fields = asdict(self)
        if self.extra is None:
            del fields["extra"]
        fields["preparation"] = self.preparation and self.preparation.to_fields()
        return json.dumps(fields, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record that `to_json` wrote.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: it wrote something else.
        """
        fields = json.loads(text)
        mean, std = (_numbers(fields[key]) for key in ("mean", "std"))
        own = fields["own_moments"] and tuple(map(_numbers, fields["own_moments"]))
        classes = [str(name) for name in fields["classes"]]
        parts = {
            str(name): PartRecord(int(p["images"]), str(p["labels"]), str(p["files"]))
            for name, p in fields["parts"].items()
        }
        shape = tuple(int(side) for side in fields["shape"])
        name, task = str(fields["name"]), str(fields["task"])
        preparation = fields["preparation"] and Preparation.from_fields(fields["preparation"])
        source = str(fields["normalization"])
        extra = fields.get("extra")  # which the first runs did not know
        images = ExtraRecord.from_fields(extra) if extra else None
        return cls(name, task, classes, mean, std, shape, parts, preparation, source, own, images)


def _numbers(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def read_training_data(run_dir: Path) -> TrainingData:
    """The data of a run.

    Raises:
        ArtifactError: they are not recorded, or the file cannot be read.
    """
    path = run_dir / DATA_FILE
    try:
        data = read_record(path, TrainingData.from_json, "description of data")
    except ArtifactError:
        data = None
    if data is None:
        raise ArtifactError(
            f"{path} cannot be read: without it nobody knows which classes and which "
            "normalization the network learned; train it anew"
        )
    return data


@dataclass(frozen=True)
class TeacherRecord:
    """The teacher that a run was trained with.

    Attributes:
        teacher: as the recipe names it.
        sha256: of its weights.
        images: how many images of which split it was evaluated on, as a phrase.
        scores: by metric, fractions; empty where its classes are not the data's.
        taps: {kind of default taps: {name: (C, H, W) or (C, T, H, W)}} of the features that the
            method reads.
    """

    teacher: str
    sha256: str
    images: str
    scores: Mapping[str, float]
    taps: Mapping[str, Mapping[str, tuple[int, ...]]]

    def to_json(self) -> str:
        """The text of `teacher.json`."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record that `to_json` wrote.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: it wrote something else.
        """
        fields = json.loads(text)
        taps = {
            kind: {name: tuple(map(int, shape)) for name, shape in shapes.items()}
            for kind, shapes in fields["taps"].items()
        }
        scores = {name: float(score) for name, score in fields["scores"].items()}
        return cls(fields["teacher"], fields["sha256"], fields["images"], scores, taps)


def read_teacher(run_dir: Path) -> TeacherRecord | None:
    """The teacher of a run, None if it had none.

    Raises:
        ArtifactError: the file cannot be read.
    """
    return read_record(run_dir / TEACHER_FILE, TeacherRecord.from_json, "record of a teacher")
