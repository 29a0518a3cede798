"""An exported file, measured: its score, its latency, its size and what it costs."""

import json
import statistics
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from ..core import ConfigError, DataError
from ..core.machine import describe_machine
from ..costs.latency import interleaved_times, torch_threads
from ..data import ImageData
from ..data.image_set import ImageSet
from ..export.formats import network_file
from ..export.model_card import card_recipe
from ..export.package import task_for
from ..export.verify import file_score
from ..recipe.data_check import class_difference, in_channels
from ..recipe.schema import Recipe, parse
from ..records.training_data import TrainingData
from ..tasks import TASKS
from .data_to_score import load_to_score
from .predictor import ExportedFile, open_exported

BATCH_SIZES = (1, 32)
_CARD = "README.md"


@dataclass(frozen=True)
class FileMeasurement:
    """What an exported file is worth and what it costs, on this machine.

    Attributes:
        file: that was measured.
        format: of the file, as `export` names it.
        predictor: of the run, "student" or "exit2".
        data: whose images it was scored on.
        split, images: "test", or "val" where there are no test images, and their number.
        metric, score: the task's primary metric.
        size: of the file in bytes, with all that goes with it.
        parameters, macs: of the network, and multiply-adds an image; None where an older file does
            not tell them.
        seconds: median of a forward pass, by its number of images.
        machine: processor and threads.
    """

    file: str
    format: str
    predictor: str
    data: str
    split: str
    images: int
    metric: str
    score: float
    size: int
    parameters: int | None
    macs: int | None
    seconds: dict[int, float]
    machine: str

    def to_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def measure(
    file: str | Path,
    *,
    data: str | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    num_threads: int | None = None,
) -> FileMeasurement:
    """Score and time an exported file, on the CPU.

    It is run over all test images of the data, prepared as in training, by its runtime.

    Args:
        file: a file with a graph that `selfdistill export` wrote, or its folder.
        data: whose test images; None takes those of the recipe on the model card beside the file.
            Of others than those all are taken, if none are held out.
        batch_sizes: images of a timed forward pass.
        num_threads: of the CPU; None takes as many as torch does.

    Raises:
        ConfigError: there is no such file, it holds no network, or nothing tells its data.
        DataError: the data have no held-out images, other classes or another shape.
        ArtifactError: the file cannot be read.

    Examples:
        >>> measure("runs/digits-muse/export/student-onnx").score  # doctest: +SKIP
    """
    if any(size < 1 for size in (*batch_sizes, num_threads or 1)):
        raise ConfigError("images and threads of a timed pass are 1 or more")
    path = _network_file(Path(file))
    threads = num_threads or torch.get_num_threads()
    exported = open_exported(path, threads)
    images_of = _data(path, exported, data)
    split = "test" if images_of.test else "val"
    images = images_of.test or images_of.val
    if not images:
        raise DataError(f"'{images_of.name}' holds no images out to score the file by")
    task, texts = task_for(images_of), exported.texts
    with torch_threads(threads), torch.inference_mode():
        score = file_score(exported.run, images, images_of, task)
        seconds = _seconds(exported, images, batch_sizes)
        machine = describe_machine()
    parameters, macs = (int(texts[k]) if texts.get(k) else None for k in ("parameters", "macs"))
    return FileMeasurement(
        str(path),
        exported.format,
        texts["predictor"],
        images_of.name,
        split,
        len(images),
        task.primary_metric,
        score,
        exported.size,
        parameters,
        macs,
        seconds,
        machine,
    )


def _network_file(path: Path) -> Path:
    if not path.exists():
        raise ConfigError(f"there is no exported network {path}")
    file = network_file(path) if path.is_dir() else path
    if file is None:
        raise ConfigError(
            f"{path} holds no exported network; selfdistill export RUN writes one, and selfdistill "
            "exits RUN measures the exits of a run"
        )
    return file


def _data(path: Path, exported: ExportedFile, name: str | None) -> ImageData:
    """The data that a file is scored by, as it takes them."""
    recipe = _recipe(path, exported, name)
    if TASKS[recipe.task].embeddings:
        raise ConfigError(
            "an embedding is scored by what the teacher gives for the images, which the run alone "
            "has; take selfdistill evaluate RUN"
        )
    shape = exported.preparation.shape
    data = load_to_score(recipe, name, (shape[-2], shape[-1]))
    if difference := class_difference(TrainingData("", "", exported.classes, (), ()), data):
        raise DataError(f"the network {difference}; give data with the same classes by --data")
    data = in_channels(data, shape[0])
    if data.train.shape != shape:
        raise DataError(
            f"the images of '{data.name}' are {data.train.shape} and the file takes {shape}; give "
            "others by --data"
        )
    return data


def _recipe(path: Path, exported: ExportedFile, name: str | None) -> Recipe:
    """The recipe on the card beside a file with the data that are named, or one for these data."""
    card = path.parent / _CARD
    page = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    text = card_recipe(page)
    if text is None and name is None:
        raise ConfigError(
            f"no model card beside {path} tells whose images it is scored by; name the data by "
            "--data"
        )
    try:
        table = tomllib.loads(text) if text else {**_own_table(exported), "data": name or ""}
        return parse(table, run_dir=path.parent)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the recipe on {card} cannot be read ({error})") from None


def _own_table(exported: ExportedFile) -> dict[str, str | int]:
    """The keys of a recipe that a file tells."""
    preparation = exported.preparation
    if clip := preparation.clip:
        return {"task": "clips", "clip_frames": clip.frames, "clip_stride": clip.stride}
    return {"task": exported.texts["task"]}


def _seconds(
    exported: ExportedFile, images: ImageSet, batch_sizes: Sequence[int]
) -> dict[int, float]:
    """{images of a pass: median seconds}, on images that are there, again where they are few."""
    calls = {}
    for size in dict.fromkeys(batch_sizes):
        index = torch.arange(size) % len(images)
        calls[str(size)] = partial(exported.run, images.fetch(index).float() / 255)
    times = interleaved_times(calls)
    return {int(size): statistics.median(rounds) for size, rounds in times.items()}
